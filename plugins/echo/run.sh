#!/bin/sh
# Says back the configured message: the smallest useful plugin, and one that can misbehave on request.
# A shell is quick to start as long as it starts nothing else; here that is one `date`.
set -u

# text KEY: set $text to the JSON text that KEY has in $config, with its escapes as they stand, or to nothing.
# A quote inside a JSON text is escaped, so `,"key":"` can only ever be a key.
text() {
    text=
    case $config in
        *[{,]\"$1\":\"*) rest=${config#*[{,]\"$1\":\"} ;;
        *) return ;;
    esac
    while :; do
        part=${rest%%\"*}
        text=$text$part
        # An odd number of backslashes escapes the quote that follows, and the text goes on.
        backslashes=${part##*[!\\]}
        [ $((${#backslashes} % 2)) -eq 1 ] || return
        text=$text\"
        rest=${rest#*\"}
    done
}

fail() {
    printf '{"status":"error","error":"%s","retry":%s}\n' "$1" "$2"
    exit 0
}

IFS= read -r request || :

# The request's keys come in a fixed order: what a stranger can write (state, event, context) comes after these two.
command=${request#*\"command\":\"}
command=${command%%\"*}
config=${request#*\"config\":}
config=${config%%\},\"state\":*}

text message
message=${text:-echo}

case $command in
    poll | handle) ;;
    health)
        printf '{"status":"ok","result":"%s","logs":[{"level":"info","message":"all is well"}]}\n' "$message"
        exit 0
        ;;
    init)
        printf '{"status":"ok","result":"%s","logs":[{"level":"info","message":"nothing to set up"}]}\n' "$message"
        exit 0
        ;;
    *) fail "echo has no such command" false ;;
esac

text mode
case ${text:-ok} in
    ok) ;;
    fail) fail "the configuration asks for a failure (mode: fail)" true ;;
    hang) exec sleep 999999999 ;;
    garbage)
        echo 'this is not JSON'
        exit 0
        ;;
    *) fail "expected one of ok, fail, hang, garbage as mode, got $text" false ;;
esac

now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
printf '{"status":"ok","result":"%s","events":[{"type":"echo.%s","payload":{"message":"%s"}}],' \
    "$message" "$command" "$message"
printf '"state_updates":{"last_run":"%s"},"logs":[{"level":"info","message":"%s done"}]}\n' "$now" "$command"
