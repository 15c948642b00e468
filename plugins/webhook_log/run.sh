#!/bin/sh
# Appends each request to a file: to read one line of JSON and to print another is all that a plugin needs to do.
umask 077
request=$(cat)

fail() {
    printf '{"status":"error","error":"%s","retry":%s}\n' "$1" "$2"
    exit
}

# The keys come in a fixed order and a quote inside a text is escaped: the first `"config":{` is Ductile's own.
case $request in
    *\"config\":\{*\},\"state\":*) config=${request#*\"config\":} config=${config%%\},\"state\":*} ;;
    *) fail "the request is not one of Ductile's" false ;;
esac
case $config in
    *[{,]\"file\":\"*) file=${config#*[{,]\"file\":\"} file=${file%%\"*} ;;
    *[{,]\"file\":*) file= ;;
    *) file=webhooks.jsonl ;;
esac
case $file in
    '' | *\\*) fail "file: expected a path in ASCII, without quotes and backslashes" false ;;
    /*) ;;
    # What an earlier step left in the workspace is shared with it and sealed: go on in a copy.
    *) [ ! -f "$file" ] || { cp -- "$file" "$file.new" && chmod u+w -- "$file.new" && mv -f -- "$file.new" "$file"; } ;;
esac

# A line that a full disk has cut off gets its end, so that it does not spoil the next.
[ ! -f "$file" ] || [ -z "$(tail -c 1 -- "$file")" ] || echo >>"$file"
printf '%s\n' "$request" >>"$file" || fail "cannot write to $file" true
printf '{"status":"ok","result":"appended to %s"}\n' "$file"
