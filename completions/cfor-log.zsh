#compdef cfor-log

autoload -U is-at-least

_cfor-log() {
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
":: :_cfor-log_commands" \
"*::: :->cfor-log" \
&& ret=0
    case $state in
    (cfor-log)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:cfor-log-command-$line[1]:"
        case $line[1] in
            (scan)
_arguments "${_arguments_options[@]}" : \
'--root=[The tree]:DIR:_files' \
'-o+[Where the index goes]:INDEX:_files' \
'--output=[Where the index goes]:INDEX:_files' \
'--base=[An earlier index\: what is as it was then is not read again]:INDEX:_files' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'--privileged[Include trusted.* and all security.* attributes]' \
'--atime[Include times of last access]' \
'--json[Print what was found as JSON]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(record)
_arguments "${_arguments_options[@]}" : \
'--log=[The directory where the source remembers its rounds]:DIR:_files' \
'--root=[The tree]:DIR:_files' \
'--backend=[What sees the changes]:BACKEND:((fanotify\:"Events of the whole file system, from all processes; needs root"
seccomp\:"System calls of a command, and of nobody else; needs no privileges"))' \
'--ranges=[See byte ranges of files of at least this size\: dumps read these, not the whole file; 0 for none]:SIZE:_default' \
'--json[Print one JSON document when recording has begun]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::command -- Record as long as this command runs, and end as it ends:_default' \
&& ret=0
;;
(note-ranges)
_arguments "${_arguments_options[@]}" : \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(show)
_arguments "${_arguments_options[@]}" : \
'--base=[Print what leads from this index to the one given]:INDEX:_files' \
'--json[Print one JSON document]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'*::log -- Logs, dumps or indexes:_files' \
&& ret=0
;;
(stat)
_arguments "${_arguments_options[@]}" : \
'--json[Print one JSON document a line]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'*::log -- Which:_files' \
&& ret=0
;;
(merge)
_arguments "${_arguments_options[@]}" : \
'-o+[Where the joined log goes]:LOG:_files' \
'--output=[Where the joined log goes]:LOG:_files' \
'--json[Print what was written as JSON; needs a file to write]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'*::log -- Logs of one tree:_files' \
&& ret=0
;;
(rotate)
_arguments "${_arguments_options[@]}" : \
'--json[Print what was written as JSON]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':log -- A log file:_files' \
':out -- Where the closed generation goes; must not exist:_files' \
&& ret=0
;;
(map)
_arguments "${_arguments_options[@]}" : \
'--root=[The tree]:DIR:_files' \
'-o+[Where the map goes]:MAP:_files' \
'--output=[Where the map goes]:MAP:_files' \
'--block=[Bytes of a block of the map]:SIZE:_default' \
'--json[Print what was found as JSON; needs a file for the map]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':log -- The directory where the source remembers its rounds:_files' \
':device -- The device that the file system of the tree is on:_files' \
&& ret=0
;;
(dump)
_arguments "${_arguments_options[@]}" : \
'--root=[The tree]:DIR:_files' \
'-o+[Where the dump goes]:DUMP:_files' \
'--output=[Where the dump goes]:DUMP:_files' \
'--standby=[Which standby it is for]:NAME:_default' \
'--barrier=[Run by /bin/sh with \`MIRROR_PHASE\`=pre-dump, dump, post-dump or abort-dump]:COMMAND:_default' \
'(--snapshot --no-scan --full -n --dry-run)--backend=[Look at nothing but what differs between two snapshots, unless the earlier one is lost]:BACKEND:((btrfs\:"Snapshots that are kept in LOG, and \`btrfs send --no-data\`; needs root"))' \
'(-n --dry-run)--format=[Write a stream that another program takes, instead of a dump for apply]:FORMAT:((btrfs\:"A stream for \`btrfs receive\`"))' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'--full[Everything, whatever the standby has acknowledged]' \
'--privileged[Include trusted.* and all security.* attributes]' \
'--atime[Include times of last access]' \
'(--full --snapshot -n --dry-run)--no-scan[Look at nothing but what the recorder of LOG saw, unless something of it is lost]' \
'--snapshot[Read a btrfs snapshot, made in LOG inside the barrier]' \
'(--barrier --snapshot)-n[Say what would be dumped, and how much; write nothing]' \
'(--barrier --snapshot)--dry-run[Say what would be dumped, and how much; write nothing]' \
'--json[Print what was dumped as JSON; needs a file to dump into]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':log -- The directory where the source remembers its rounds:_files' \
&& ret=0
;;
(ack)
_arguments "${_arguments_options[@]}" : \
'--json[Print what is remembered as JSON]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':log -- The directory where the source remembers its rounds:_files' \
':standby -- Which standby:_default' \
'::round -- The round that it has, as apply prints it; its number alone where something else took the dump:_default' \
&& ret=0
;;
(apply)
_arguments "${_arguments_options[@]}" : \
'--root=[The tree that is made identical; ssh\://\[USER@\]HOST/DIR on another machine]:DIR:_files' \
'--rsh=[Reach ssh\:// by this command, such as '\''ssh -4'\'', instead of libssh2]:COMMAND:_default' \
'--remote-path=[Where mirror-sync is on the other machine \[default\: on its PATH\]]:PATH:_default' \
'--log=[Where the standby remembers its round \[default\: in the state directory, by the path of the tree\]]:DIR:_files' \
'--barrier=[Run by /bin/sh with \`MIRROR_PHASE\`=pre-restore, restore, post-restore or abort-restore]:COMMAND:_default' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'--verify[Read all of the tree again afterwards, and compare]' \
'--privileged[Make device nodes, set-uid files, trusted.* and security.* attributes]' \
'(--redo --verify)-n[Check the dump and say what it would do; change nothing]' \
'(--redo --verify)--dry-run[Check the dump and say what it would do; change nothing]' \
'()--redo[Read no dump\: finish one that was interrupted]' \
'--json[Print what was applied as JSON, instead of the round]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'::dump -- The dump:_files' \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
'--root=[The tree]:DIR:_files' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'--rsh=[Reach ssh\:// by this command, such as '\''ssh -4'\'', instead of libssh2]:COMMAND:_default' \
'--remote-path=[Where mirror-sync is on the other machine \[default\: on its PATH\]]:PATH:_default' \
'(--log)--against=[An index or another tree to compare with; ssh\://\[USER@\]HOST/DIR is read over there]:INDEX|DIR:_files' \
'--log=[Where the standby remembers its round \[default\: in the state directory, by the path of the tree\]]:DIR:_files' \
'--privileged[With a tree on another machine\: include trusted.* and all security.* attributes]' \
'--atime[With a tree on another machine\: include times of last access]' \
'--json[Print the differences as JSON]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(seed)
_arguments "${_arguments_options[@]}" : \
'--rsh=[Reach ssh\:// by this command, such as '\''ssh -4'\'', instead of libssh2]:COMMAND:_default' \
'--remote-path=[Where mirror-sync is on the other machine \[default\: on its PATH\]]:PATH:_default' \
'--root=[The tree]:DIR:_files' \
'--log=[The directory where the source remembers its rounds]:DIR:_files' \
'--target-log=[Where the standby remembers its round \[default\: in the state directory, by the path of the target\]]:DIR:_files' \
'--standby=[Which standby it is]:NAME:_default' \
'(--snapshot -n --dry-run)--backend=[Look at nothing but what differs between two snapshots, unless the earlier one is lost]:BACKEND:((btrfs\:"Snapshots that are kept in LOG, and \`btrfs send --no-data\`; needs root"))' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'--barrier=[Run by /bin/sh around the last round, with \`MIRROR_PHASE\` as for dump]:COMMAND:_default' \
'--privileged[All that dump and apply would ask leave for]' \
'--atime[Include times of last access]' \
'--snapshot[Read btrfs snapshots, made in LOG]' \
'(--barrier --snapshot)-n[Say what the first round would carry; write nothing]' \
'(--barrier --snapshot)--dry-run[Say what the first round would carry; write nothing]' \
'--json[Print what was done as JSON]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':target -- The tree that is made identical\: an empty directory; ssh\://\[USER@\]HOST/DIR on another machine:_files' \
&& ret=0
;;
        esac
    ;;
esac
}

(( $+functions[_cfor-log_commands] )) ||
_cfor-log_commands() {
    local commands; commands=(
'scan:Look at a tree, and write its index' \
'record:See changes as they happen, for dumps that look at nothing else' \
'note-ranges:Note accesses to big files, for record, which starts it' \
'show:Print what changed, one operation a line' \
'stat:Print figures of logs, dumps, indexes and directories' \
'merge:Join logs into one' \
'rotate:Take the records of a log out, and begin its next generation' \
'map:Find the changed bytes on the device underneath, as a dirty map of it' \
'dump:Write what changed since the round that a standby has, with the data' \
'ack:Remember the round that a standby has' \
'apply:Make a standby identical, and print its round' \
'verify:Read a tree and compare it; ends with 1 when it differs' \
'seed:Synchronise an empty directory for the first time' \
    )
    _describe -t commands 'cfor-log commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__ack_commands] )) ||
_cfor-log__subcmd__ack_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log ack commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__apply_commands] )) ||
_cfor-log__subcmd__apply_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log apply commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__dump_commands] )) ||
_cfor-log__subcmd__dump_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log dump commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__map_commands] )) ||
_cfor-log__subcmd__map_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log map commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__merge_commands] )) ||
_cfor-log__subcmd__merge_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log merge commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__note-ranges_commands] )) ||
_cfor-log__subcmd__note-ranges_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log note-ranges commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__record_commands] )) ||
_cfor-log__subcmd__record_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log record commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__rotate_commands] )) ||
_cfor-log__subcmd__rotate_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log rotate commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__scan_commands] )) ||
_cfor-log__subcmd__scan_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log scan commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__seed_commands] )) ||
_cfor-log__subcmd__seed_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log seed commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__show_commands] )) ||
_cfor-log__subcmd__show_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log show commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__stat_commands] )) ||
_cfor-log__subcmd__stat_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log stat commands' commands "$@"
}
(( $+functions[_cfor-log__subcmd__verify_commands] )) ||
_cfor-log__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'cfor-log verify commands' commands "$@"
}

if [ "$funcstack[1]" = "_cfor-log" ]; then
    _cfor-log "$@"
else
    compdef _cfor-log cfor-log
fi
