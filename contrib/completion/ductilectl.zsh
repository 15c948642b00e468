#compdef ductilectl
# Completes the commands, options, plugins, pipelines and jobs of ductilectl in zsh, with their meanings.
#
# Put this line into ~/.zshrc, after compinit:
#   eval "$(ductilectl completion zsh)"
# or put this file as _ductilectl into a directory of $fpath.

_ductilectl() {
    local -a found described
    local line tab=$'\t'
    found=("${(@f)$("$words[1]" complete "${(@)words[2,CURRENT]}" </dev/null 2>/dev/null)}")
    case $found[1] in
        '') return 1 ;;
        :files) _files; return ;;
        :dirs) _files -/; return ;;
    esac
    for line in $found; do
        # A colon separates a candidate from its meaning.
        described+=("${${line%%$tab*}//:/\\:}${${line#*$tab}:+:${line#*$tab}}")
    done
    _describe -V 'ductilectl' described
}

if [[ $funcstack[1] == _ductilectl ]]; then
    _ductilectl "$@"
else
    compdef _ductilectl ductilectl
fi
