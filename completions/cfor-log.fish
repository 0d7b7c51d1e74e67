# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_cfor_log_global_optspecs
    string join \n q/quiet h/help V/version
end

function __fish_cfor_log_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_cfor_log_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_cfor_log_using_subcommand
    set -l cmd (__fish_cfor_log_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c cfor-log -n "__fish_cfor_log_needs_command" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -s V -l version -d 'Print version'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "scan" -d 'Look at a tree, and write its index'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "record" -d 'See changes as they happen, for dumps that look at nothing else'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "note-ranges" -d 'Note accesses to big files, for record, which starts it'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "show" -d 'Print what changed, one operation a line'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "stat" -d 'Print figures of logs, dumps, indexes and directories'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "merge" -d 'Join logs into one'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "rotate" -d 'Take the records of a log out, and begin its next generation'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "map" -d 'Find the changed bytes on the device underneath, as a dirty map of it'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "dump" -d 'Write what changed since the round that a standby has, with the data'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "ack" -d 'Remember the round that a standby has'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "apply" -d 'Make a standby identical, and print its round'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "verify" -d 'Read a tree and compare it; ends with 1 when it differs'
complete -c cfor-log -n "__fish_cfor_log_needs_command" -f -a "seed" -d 'Synchronise an empty directory for the first time'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -l root -d 'The tree' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -s o -l output -d 'Where the index goes' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -l base -d 'An earlier index: what is as it was then is not read again' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -l privileged -d 'Include trusted.* and all security.* attributes'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -l atime -d 'Include times of last access'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -l json -d 'Print what was found as JSON'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand scan" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand record" -l log -d 'The directory where the source remembers its rounds' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand record" -l root -d 'The tree' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand record" -l backend -d 'What sees the changes' -r -f -a "fanotify\t'Events of the whole file system, from all processes; needs root'
seccomp\t'System calls of a command, and of nobody else; needs no privileges'"
complete -c cfor-log -n "__fish_cfor_log_using_subcommand record" -l ranges -d 'See byte ranges of files of at least this size: dumps read these, not the whole file; 0 for none' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand record" -l json -d 'Print one JSON document when recording has begun'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand record" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand record" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand note-ranges" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand note-ranges" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand show" -l base -d 'Print what leads from this index to the one given' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand show" -l json -d 'Print one JSON document'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand show" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand show" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand stat" -l json -d 'Print one JSON document a line'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand stat" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand stat" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand merge" -s o -l output -d 'Where the joined log goes' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand merge" -l json -d 'Print what was written as JSON; needs a file to write'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand merge" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand merge" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand rotate" -l json -d 'Print what was written as JSON'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand rotate" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand rotate" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand map" -l root -d 'The tree' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand map" -s o -l output -d 'Where the map goes' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand map" -l block -d 'Bytes of a block of the map' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand map" -l json -d 'Print what was found as JSON; needs a file for the map'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand map" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand map" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l root -d 'The tree' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -s o -l output -d 'Where the dump goes' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l standby -d 'Which standby it is for' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l barrier -d 'Run by /bin/sh with `MIRROR_PHASE`=pre-dump, dump, post-dump or abort-dump' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l backend -d 'Look at nothing but what differs between two snapshots, unless the earlier one is lost' -r -f -a "btrfs\t'Snapshots that are kept in LOG, and `btrfs send --no-data`; needs root'"
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l format -d 'Write a stream that another program takes, instead of a dump for apply' -r -f -a "btrfs\t'A stream for `btrfs receive`'"
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l full -d 'Everything, whatever the standby has acknowledged'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l privileged -d 'Include trusted.* and all security.* attributes'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l atime -d 'Include times of last access'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l no-scan -d 'Look at nothing but what the recorder of LOG saw, unless something of it is lost'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l snapshot -d 'Read a btrfs snapshot, made in LOG inside the barrier'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -s n -l dry-run -d 'Say what would be dumped, and how much; write nothing'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -l json -d 'Print what was dumped as JSON; needs a file to dump into'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand dump" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand ack" -l json -d 'Print what is remembered as JSON'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand ack" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand ack" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l root -d 'The tree that is made identical; ssh://[USER@]HOST/DIR on another machine' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l rsh -d 'Reach ssh:// by this command, such as \'ssh -4\', instead of libssh2' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l remote-path -d 'Where mirror-sync is on the other machine [default: on its PATH]' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l log -d 'Where the standby remembers its round [default: in the state directory, by the path of the tree]' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l barrier -d 'Run by /bin/sh with `MIRROR_PHASE`=pre-restore, restore, post-restore or abort-restore' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l verify -d 'Read all of the tree again afterwards, and compare'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l privileged -d 'Make device nodes, set-uid files, trusted.* and security.* attributes'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -s n -l dry-run -d 'Check the dump and say what it would do; change nothing'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l redo -d 'Read no dump: finish one that was interrupted'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -l json -d 'Print what was applied as JSON, instead of the round'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand apply" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l root -d 'The tree' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l rsh -d 'Reach ssh:// by this command, such as \'ssh -4\', instead of libssh2' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l remote-path -d 'Where mirror-sync is on the other machine [default: on its PATH]' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l against -d 'An index or another tree to compare with; ssh://[USER@]HOST/DIR is read over there' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l log -d 'Where the standby remembers its round [default: in the state directory, by the path of the tree]' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l privileged -d 'With a tree on another machine: include trusted.* and all security.* attributes'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l atime -d 'With a tree on another machine: include times of last access'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -l json -d 'Print the differences as JSON'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand verify" -s h -l help -d 'Print help'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l rsh -d 'Reach ssh:// by this command, such as \'ssh -4\', instead of libssh2' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l remote-path -d 'Where mirror-sync is on the other machine [default: on its PATH]' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l root -d 'The tree' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l log -d 'The directory where the source remembers its rounds' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l target-log -d 'Where the standby remembers its round [default: in the state directory, by the path of the target]' -r -F
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l standby -d 'Which standby it is' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l backend -d 'Look at nothing but what differs between two snapshots, unless the earlier one is lost' -r -f -a "btrfs\t'Snapshots that are kept in LOG, and `btrfs send --no-data`; needs root'"
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l barrier -d 'Run by /bin/sh around the last round, with `MIRROR_PHASE` as for dump' -r
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l privileged -d 'All that dump and apply would ask leave for'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l atime -d 'Include times of last access'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l snapshot -d 'Read btrfs snapshots, made in LOG'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -s n -l dry-run -d 'Say what the first round would carry; write nothing'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -l json -d 'Print what was done as JSON'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c cfor-log -n "__fish_cfor_log_using_subcommand seed" -s h -l help -d 'Print help (see more with \'--help\')'
