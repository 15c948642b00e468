#!/bin/sh
# PLUGIN_NAME: reads one request on standard input, writes one response to standard output, and exits.
# Write messages for people to standard error. The working directory belongs to this job: the next step of a pipeline
# gets the files that a successful run leaves in it.
set -u

IFS= read -r request || :

# The request is one line of JSON:
#   {"protocol":2,"job_id":"...","command":"poll","config":{...},"state":{...},"event":{...},...}
# The command comes early in it and can be found without a parser. Use a parser such as jq for the rest:
#   greeting=$(printf '%s' "$request" | jq -r '.config.greeting // "Hello"')
command=${request#*\"command\":\"}
command=${command%%\"*}

case $command in
    poll)
        # events: what happened, for routes and pipelines. Only the events of a successful run count.
        # state_updates: what to remember. The next run finds it under "state", even if this one fails.
        # logs: lines for `ductilectl logs`. The levels are debug, info, warn and error.
        now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
        printf '{"status":"ok","result":"polled at %s",' "$now"
        printf '"events":[{"type":"PLUGIN_NAME.polled","payload":{"at":"%s"}}],' "$now"
        printf '"state_updates":{"last_run":"%s"},' "$now"
        printf '"logs":[{"level":"info","message":"polled"}]}\n'
        ;;
    handle)
        # A failed run is retried, unless "retry" is false:
        #   printf '{"status":"error","error":"the payload has no text","retry":false}\n'
        printf '{"status":"ok","result":"handled an event"}\n'
        ;;
    health)
        printf '{"status":"ok","result":"works"}\n'
        ;;
    *)
        printf '{"status":"error","error":"no such command","retry":false}\n'
        ;;
esac
