# Completes the commands, options, plugins, pipelines and jobs of ductilectl in bash.
#
# Source this file in ~/.bashrc, or put it where bash-completion looks for files named after the command, such as
# /usr/local/share/bash-completion/completions/.

_ductilectl_words() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

# Files (-f) or directories (-d).
_ductilectl_paths() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}

# What only the program knows: plugins, pipelines, jobs. What it cannot tell is not completed, and nothing is said.
_ductilectl_ask() {
    local -a where=()
    [[ -n $config ]] && where=(-c "${config/#\~/"$HOME"}")
    mapfile -t COMPREPLY < <("$program" "${where[@]}" complete "$1" "$cur" </dev/null 2>/dev/null)
}

_ductilectl_options() {
    local options='-h --help -c --config --json --utc'
    case $1 in
        '') options+=' --version' ;;
        check) options+=' --database' ;;
        pipelines) options+=' --mermaid' ;;
        queue) options+=' -n' ;;
        schedule) options+=' --next' ;;
        jobs) options+=' --failed --status --plugin --pipeline --since --until -n --limit' ;;
        run) options+=' --payload --type --wait' ;;
        emit) options+=' --payload --source --dry-run' ;;
        inspect) options+=' --context' ;;
        logs) options+=' -f --follow -n --since --until --failed --grep' ;;
        test) options+=' --event --state --request' ;;
        wait) options+=' --timeout' ;;
        backup) options+=' --keep' ;;
        reload) options+=' --yes' ;;
        retry) options+=' --all-failed --plugin --since --yes' ;;
        report) options+=' --since --output' options=${options/ --json/} ;;
        state) options+=' --set --clear' ;;
        new-plugin) options+=' --lang --dir' ;;
        monitor) options=${options/ --json/} ;;
    esac
    _ductilectl_words "$options"
}

_ductilectl() {
    local program=$1 cur=${COMP_WORDS[COMP_CWORD]}
    local command= option= config= position=0 index word
    local valued=' -c --config -n --payload --type --source --set --event --state --request --lang --dir
        --timeout --keep --status --plugin --pipeline --since --until --limit --grep
        --output --next '
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $valued == *" $word "* ]]; then
            # An equals sign between an option and its value is a word by itself, as COMP_WORDBREAKS has it by default.
            [[ ${COMP_WORDS[index + 1]} == '=' ]] && ((index++))
            ((index++))
            if ((index >= COMP_CWORD)); then
                option=$word
            elif [[ $word == -c || $word == --config ]]; then
                config=${COMP_WORDS[index]}
            fi
        elif [[ $word == --config=* ]]; then
            config=${word#*=}
        elif [[ $word != -* && -z $command ]]; then
            command=$word
        elif [[ $word != -* ]]; then
            ((position++))
        fi
    done
    [[ $cur == '=' ]] && cur=

    case $option in
        -c | --config | --set | --event | --state | --request | --output) _ductilectl_paths -f; return ;;
        --dir) _ductilectl_paths -d; return ;;
        --lang) _ductilectl_words 'sh python node'; return ;;
        --source | --plugin) _ductilectl_ask plugins; return ;;
        --pipeline) _ductilectl_ask pipelines; return ;;
        --status) _ductilectl_words 'queued waiting running succeeded dead deduped'; return ;;
        ?*) return ;;
    esac
    if [[ $cur == -* ]]; then
        _ductilectl_options "$command"
        return
    fi
    case $command:$position in
        :*) _ductilectl_words 'init check status plugins pipelines schedule queue jobs run emit logs inspect retry replay
                cancel pause resume reset health test edit reload wait state backup restore new-plugin
                webhook attempt report monitor' ;;
        init:0 | attempt:0) _ductilectl_paths -d ;;
        backup:0 | restore:0) _ductilectl_paths -f ;;
        pipelines:0) _ductilectl_ask pipelines ;;
        test:0) if [[ $cur == */* ]]; then _ductilectl_paths -d; else _ductilectl_ask plugins; fi ;;
        run:0 | logs:0 | schedule:0 | pause:0 | resume:0 | reset:0 | health:0 | state:0) _ductilectl_ask plugins ;;
        run:1 | test:1) _ductilectl_words 'poll handle health init' ;;
        inspect:0) _ductilectl_ask jobs ;;
        retry:0) _ductilectl_ask dead ;;
        replay:0) _ductilectl_ask ended ;;
        cancel:0) _ductilectl_ask queued ;;
        webhook:0) _ductilectl_words presets ;;
    esac
}

complete -F _ductilectl ductilectl
