#compdef mirrord

autoload -U is-at-least

_mirrord() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_mirrord_commands" \
"*::: :->mirrord" \
&& ret=0
    case $state in
    (mirrord)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:mirrord-command-$line[1]:"
        case $line[1] in
            (create)
_arguments "${_arguments_options[@]}" : \
'(--like)--size=[Size of the volume]:SIZE:_default' \
'--like=[As large as this device]:DEVICE:_default' \
'(--from --known-equal --known-zero)--salvage=[What this leg holds is the volume\: its old records are damaged or lost]:LEG:_default' \
'*--leg=[One copy of the volume; may be repeated]:LEG:_default' \
'--from=[This leg holds the data; it is copied to all others]:LEG:_default' \
'*--listen=[Listen on HOST\:PORT; may be repeated]:ADDR:_default' \
'(--listen)--unix=[Listen on a Unix socket \[default\: nbd.sock beside the maps\]]:PATH:_files' \
'*--allow=[Only these addresses may connect over TCP\: a range, or one; may be repeated]:CIDR:_default' \
'--tls-dir=[Certificates\: TCP listeners speak TLS only, and nbds legs find theirs here]:DIR:_files' \
'--metrics=[Offer figures for Prometheus\: HOST\:PORT or unix\:PATH answer HTTP, a path with a / is a file written anew]:ADDR|FILE:_default' \
'--on-event=[Run this by the shell at each event; facts are in the environment]:COMMAND:_default' \
'--min-legs=[Refuse writes with fewer legs in sync \[default\: 1\]]:N:_default' \
'--map-block=[A bit of a map stands for so many bytes \[default\: 64K\]]:SIZE:_default' \
'--map-durability=[What marks survive\: process (a kill) or power (a power cut) \[default\: process\]]:DURABILITY:_default' \
'--read-policy=[Which leg answers reads\: local, least-pending, round-robin \[default\: local\]]:POLICY:_default' \
'--spin=[With at most two requests in flight, ask the sockets for so long before sleeping \[default\: 20\]]:MICROSECONDS:_default' \
'-n[Check everything, print what would be made, change nothing]' \
'--dry-run[Check everything, print what would be made, change nothing]' \
'--json[Print what was made as JSON]' \
'--known-equal[All legs hold the same data already]' \
'--known-zero[All legs read as zeroes]' \
'--insecure[Listen beyond this machine though nothing asks who connects]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Name of the new volume:_default' \
&& ret=0
;;
(serve)
_arguments "${_arguments_options[@]}" : \
'--config=[Read \[volume.NAME\] of this file; flags are stronger]:FILE:_files' \
'*--leg=[One copy of the volume; may be repeated]:LEG:_default' \
'--from=[This leg holds the data; it is copied to all others]:LEG:_default' \
'*--listen=[Listen on HOST\:PORT; may be repeated]:ADDR:_default' \
'(--listen)--unix=[Listen on a Unix socket \[default\: nbd.sock beside the maps\]]:PATH:_files' \
'*--allow=[Only these addresses may connect over TCP\: a range, or one; may be repeated]:CIDR:_default' \
'--tls-dir=[Certificates\: TCP listeners speak TLS only, and nbds legs find theirs here]:DIR:_files' \
'--metrics=[Offer figures for Prometheus\: HOST\:PORT or unix\:PATH answer HTTP, a path with a / is a file written anew]:ADDR|FILE:_default' \
'--on-event=[Run this by the shell at each event; facts are in the environment]:COMMAND:_default' \
'--min-legs=[Refuse writes with fewer legs in sync \[default\: 1\]]:N:_default' \
'--map-block=[A bit of a map stands for so many bytes \[default\: 64K\]]:SIZE:_default' \
'--map-durability=[What marks survive\: process (a kill) or power (a power cut) \[default\: process\]]:DURABILITY:_default' \
'--read-policy=[Which leg answers reads\: local, least-pending, round-robin \[default\: local\]]:POLICY:_default' \
'--spin=[With at most two requests in flight, ask the sockets for so long before sleeping \[default\: 20\]]:MICROSECONDS:_default' \
'--ephemeral[A throw-away mirror of the legs that are given\: nothing is stored]' \
'(--listen --unix)-s[One client on standard input and output; stop when it has gone]' \
'(--listen --unix)--stdio[One client on standard input and output; stop when it has gone]' \
'--exit-with-parent[Stop when the process that started this one ends]' \
'--known-equal[All legs hold the same data already]' \
'--known-zero[All legs read as zeroes]' \
'--insecure[Listen beyond this machine though nothing asks who connects]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Name of the volume:_default' \
&& ret=0
;;
(status)
_arguments "${_arguments_options[@]}" : \
'--watch=[Show it again after so long, until stopped]:SECONDS:_default' \
'--json[One JSON document a line for each volume]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'::name -- Which volume; without it all are shown, also those that are not served:_default' \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
'--behind=[CRITICAL when a copy lacks more bytes, or for longer; either may be left out (1G or ,60s)]:BYTES,SECONDS:_default' \
'--stall=[CRITICAL when a copy that has to be brought back stands still for longer]:SECONDS:_default' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
&& ret=0
;;
(wait)
_arguments "${_arguments_options[@]}" : \
'--until=[The state]:UNTIL:((synced\:"Every leg is connected, \`UpToDate\` and misses nothing"
connected\:"Every leg is connected"))' \
'--timeout=[Give up after so long]:T:_default' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':name -- Which volume:_default' \
&& ret=0
;;
(events)
_arguments "${_arguments_options[@]}" : \
'--now[Print the present state as events, and end]' \
'--json[One JSON document a line]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'::name -- Which volume; without it all that are served:_default' \
&& ret=0
;;
(leg)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
":: :_mirrord__subcmd__leg_commands" \
"*::: :->leg" \
&& ret=0

    case $state in
    (leg)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:mirrord-leg-command-$line[1]:"
        case $line[1] in
            (add)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':leg -- The new leg:_default' \
&& ret=0
;;
(remove)
_arguments "${_arguments_options[@]}" : \
'--force=[Override what the refusal named\: last-copy (only while nobody serves the volume)]:WHAT:((last-copy\:"The last good copy"))' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':name -- Which volume:_default' \
':leg -- Which leg:_default' \
&& ret=0
;;
(detach)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':leg -- Which leg:_default' \
&& ret=0
;;
(attach)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':leg -- Which leg:_default' \
&& ret=0
;;
(fail)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':leg -- Which leg:_default' \
&& ret=0
;;
(replace)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':old -- The leg that leaves; at once where it has failed:_default' \
':new -- The leg that comes:_default' \
&& ret=0
;;
(set)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':leg -- Which leg:_default' \
'*::settings -- device=, read=, timeout=, retries=, rate=:_default' \
&& ret=0
;;
(reset)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':leg -- Which leg:_default' \
&& ret=0
;;
        esac
    ;;
esac
;;
(resync)
_arguments "${_arguments_options[@]}" : \
'--full[Copy everything, whatever the map says]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
'::leg -- Which leg; without it all that miss something:_default' \
&& ret=0
;;
(pause)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
'::leg -- Which leg; without it all legs:_default' \
&& ret=0
;;
(resume)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
'::leg -- Which leg; without it all legs:_default' \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
'--repair-from=[Copy the blocks that differ from this leg to those that hold something else]:LEG:_default' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'--json[Print what was found as JSON]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
'::leg -- Only what differs between this leg and another:_default' \
&& ret=0
;;
(snapshot-barrier)
_arguments "${_arguments_options[@]}" : \
'--timeout=[Let writes go on after so long, whatever the command does \[default\: 10s\]]:T:_default' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
'*::command -- What is run while nothing is written:_default' \
&& ret=0
;;
(resize)
_arguments "${_arguments_options[@]}" : \
'--grow[As large as its smallest leg]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
'::size -- Its new size:_default' \
&& ret=0
;;
(tracker)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
":: :_mirrord__subcmd__tracker_commands" \
"*::: :->tracker" \
&& ret=0

    case $state in
    (tracker)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:mirrord-tracker-command-$line[1]:"
        case $line[1] in
            (add)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':tracker -- Which tracker:_default' \
&& ret=0
;;
(remove)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
':tracker -- Which tracker:_default' \
&& ret=0
;;
(ls)
_arguments "${_arguments_options[@]}" : \
'--json[A JSON document a line, mirrord-tracker/1]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':name -- Which volume:_default' \
'::tracker -- Only this one:_default' \
&& ret=0
;;
        esac
    ;;
esac
;;
(check-config)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':file -- The file:_files' \
&& ret=0
;;
        esac
    ;;
esac
}

(( $+functions[_mirrord_commands] )) ||
_mirrord_commands() {
    local commands; commands=(
'create:Make a volume of one or more legs' \
'serve:Serve a volume until SIGTERM' \
'status:Show the state of one volume, or of all' \
'check:Say as a monitoring plugin does how a volume is\: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN' \
'wait:Wait until a volume is in a state; ends with 7 when the time is over' \
'events:Print what happens, one line for each event' \
'leg:Add, remove, replace, change legs; take one out, or back' \
'resync:Copy what is missing to a leg, or to all that miss something' \
'pause:Let no copy to a leg (to all legs) begin until it is resumed, or the daemon ends' \
'resume:Let copies go on' \
'verify:Compare the legs while clients work\: 0 equal, 1 they differ, 8 not everything was compared' \
'snapshot-barrier:Hold writes with all legs flushed, run a command, let them go on; ends as the command does' \
'resize:Make a volume larger; its legs have been extended before' \
'tracker:Trackers\: what changed since a moment, for backups and further copies' \
'check-config:Check a configuration file\: silence and 0 when it is right' \
    )
    _describe -t commands 'mirrord commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__check_commands] )) ||
_mirrord__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord check commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__check-config_commands] )) ||
_mirrord__subcmd__check-config_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord check-config commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__create_commands] )) ||
_mirrord__subcmd__create_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord create commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__events_commands] )) ||
_mirrord__subcmd__events_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord events commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg_commands] )) ||
_mirrord__subcmd__leg_commands() {
    local commands; commands=(
'add:Add a leg\: everything is missing there, and is copied while the volume goes on' \
'remove:Make a leg a member no more; its device is not touched' \
'detach:Take a leg out until it is attached; its map collects what it misses' \
'attach:Take a leg back; what it missed is copied' \
'fail:Declare a leg failed, without waiting for its deadline' \
'replace:Put a new leg in the place of an old one, which leaves when the new one is up to date' \
'set:Change settings of a leg' \
'reset:Forget what a leg holds, and its failures\: everything is copied to it' \
    )
    _describe -t commands 'mirrord leg commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__add_commands] )) ||
_mirrord__subcmd__leg__subcmd__add_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg add commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__attach_commands] )) ||
_mirrord__subcmd__leg__subcmd__attach_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg attach commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__detach_commands] )) ||
_mirrord__subcmd__leg__subcmd__detach_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg detach commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__fail_commands] )) ||
_mirrord__subcmd__leg__subcmd__fail_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg fail commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__remove_commands] )) ||
_mirrord__subcmd__leg__subcmd__remove_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg remove commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__replace_commands] )) ||
_mirrord__subcmd__leg__subcmd__replace_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg replace commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__reset_commands] )) ||
_mirrord__subcmd__leg__subcmd__reset_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg reset commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__leg__subcmd__set_commands] )) ||
_mirrord__subcmd__leg__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord leg set commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__pause_commands] )) ||
_mirrord__subcmd__pause_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord pause commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__resize_commands] )) ||
_mirrord__subcmd__resize_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord resize commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__resume_commands] )) ||
_mirrord__subcmd__resume_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord resume commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__resync_commands] )) ||
_mirrord__subcmd__resync_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord resync commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__serve_commands] )) ||
_mirrord__subcmd__serve_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord serve commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__snapshot-barrier_commands] )) ||
_mirrord__subcmd__snapshot-barrier_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord snapshot-barrier commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__status_commands] )) ||
_mirrord__subcmd__status_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord status commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__tracker_commands] )) ||
_mirrord__subcmd__tracker_commands() {
    local commands; commands=(
'add:From now on it marks what changes' \
'remove:Forget it' \
'ls:What each holds, a line for each' \
    )
    _describe -t commands 'mirrord tracker commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__tracker__subcmd__add_commands] )) ||
_mirrord__subcmd__tracker__subcmd__add_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord tracker add commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__tracker__subcmd__ls_commands] )) ||
_mirrord__subcmd__tracker__subcmd__ls_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord tracker ls commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__tracker__subcmd__remove_commands] )) ||
_mirrord__subcmd__tracker__subcmd__remove_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord tracker remove commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__verify_commands] )) ||
_mirrord__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord verify commands' commands "$@"
}
(( $+functions[_mirrord__subcmd__wait_commands] )) ||
_mirrord__subcmd__wait_commands() {
    local commands; commands=()
    _describe -t commands 'mirrord wait commands' commands "$@"
}

if [ "$funcstack[1]" = "_mirrord" ]; then
    _mirrord "$@"
else
    compdef _mirrord mirrord
fi
