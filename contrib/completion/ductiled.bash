# Completes the options of ductiled in bash; see ductilectl.bash beside this file.

_ductiled() {
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    [[ $cur == '=' ]] && cur=
    [[ $previous == '=' ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}
    case $previous in
        -c | --config)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            ;;
        *) mapfile -t COMPREPLY < <(compgen -W '-h --help -c --config -d --daemon -t --check --version' -- "$cur") ;;
    esac
}

complete -F _ductiled ductiled
