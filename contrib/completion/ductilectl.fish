# Completes the commands, options, plugins, pipelines and jobs of ductilectl in fish, with their meanings.
#
# Put this line into ~/.config/fish/config.fish:
#   ductilectl completion fish | source
# or put this file into ~/.config/fish/completions/.

function __ductilectl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l found ($program complete $words "$current" </dev/null 2>/dev/null)
    switch "$found[1]"
        case :files
            __fish_complete_path "$current"
        case :dirs
            __fish_complete_directories "$current"
        case '*'
            printf '%s\n' $found
    end
end

complete -c ductilectl -f -a '(__ductilectl_complete)'
