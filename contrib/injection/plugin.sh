#!/bin/sh
# Writes down when it begins and when it is done, appended and synced, counts in its state how often it succeeded, and
# hands its token on. While there is a FIFO `gate` it waits for a line from there. It starts few programs: a soak runs
# it twenty times a second.
site=${0%/plugins/*}
IFS= read -r request

# Set `found` to the value of a key that has digits or a quoted word without escapes, or to nothing.
find() {
    found=
    case $request in
    *"\"$1\":"*)
        found=${request#*"\"$1\":"}
        found=${found# }
        found=${found#\"}
        found=${found%%[!A-Za-z0-9-]*}
        ;;
    esac
}

note() {
    printf '%s %s %s %s %s\n' "$1" "$DUCTILE_JOB_ID" "$DUCTILE_ATTEMPT" "$DUCTILE_PLUGIN" "${token:--}" >>"$site/records"
}

find token
token=$found
find "count_$DUCTILE_PLUGIN"
count=${found:-0}
# Held until the end: two runs of one job side by side would meet here.
exec 9>>"$site/locks/$DUCTILE_JOB_ID"
flock -n 9 || note overlap
note begin
if [ -p "$site/gate" ]; then
    read -r _ <"$site/gate"
fi
case $token in
files*)
    mkdir "made-by-$DUCTILE_PLUGIN"
    for number in 1 2 3; do
        echo "$token" >"made-by-$DUCTILE_PLUGIN/$number"
    done
    ;;
esac
note done
sync -d "$site/records"
events=
[ -z "$token" ] || events="{\"type\": \"marked\", \"payload\": {\"token\": \"$token\"}}"
printf '{"status": "ok", "result": "done", "events": [%s], "state_updates": {"count_%s": %d}}\n' \
    "$events" "$DUCTILE_PLUGIN" "$((count + 1))"
