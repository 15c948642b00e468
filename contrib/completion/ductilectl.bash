# Completes the commands, options, plugins, pipelines and jobs of ductilectl in bash.
#
# Put this line into ~/.bashrc:
#   eval "$(ductilectl completion bash)"
# or put this file where bash-completion looks for files named after the command, such as
# /usr/local/share/bash-completion/completions/.

_ductilectl() {
    local cur=${COMP_WORDS[COMP_CWORD]}
    local -a found=()
    # An equals sign between an option and its value is a word by itself, as COMP_WORDBREAKS has it by default.
    [[ $cur == '=' ]] && cur=
    mapfile -t found < <("$1" complete "${COMP_WORDS[@]:1:COMP_CWORD}" </dev/null 2>/dev/null)
    case ${found[0]-} in
        :files | :dirs)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen "-${found[0]:1:1}" -- "$cur")
            ;;
        *) COMPREPLY=("${found[@]%%$'\t'*}") ;;
    esac
}

complete -F _ductilectl ductilectl
