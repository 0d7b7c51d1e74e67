# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_mirrord_global_optspecs
    string join \n q/quiet h/help V/version
end

function __fish_mirrord_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_mirrord_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_mirrord_using_subcommand
    set -l cmd (__fish_mirrord_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c mirrord -n "__fish_mirrord_needs_command" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_needs_command" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_needs_command" -s V -l version -d 'Print version'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "create" -d 'Make a volume of one or more legs'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "serve" -d 'Serve a volume until SIGTERM'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "status" -d 'Show the state of one volume, or of all'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "check" -d 'Say as a monitoring plugin does how a volume is: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "wait" -d 'Wait until a volume is in a state; ends with 7 when the time is over'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "events" -d 'Print what happens, one line for each event'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "leg" -d 'Add, remove, replace, change legs; take one out, or back'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "resync" -d 'Copy what is missing to a leg, or to all that miss something'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "pause" -d 'Let no copy to a leg (to all legs) begin until it is resumed, or the daemon ends'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "resume" -d 'Let copies go on'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "verify" -d 'Compare the legs while clients work: 0 equal, 1 they differ, 8 not everything was compared'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "snapshot-barrier" -d 'Hold writes with all legs flushed, run a command, let them go on; ends as the command does'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "resize" -d 'Make a volume larger; its legs have been extended before'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "tracker" -d 'Trackers: what changed since a moment, for backups and further copies'
complete -c mirrord -n "__fish_mirrord_needs_command" -f -a "check-config" -d 'Check a configuration file: silence and 0 when it is right'
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l size -d 'Size of the volume' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l like -d 'As large as this device' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l salvage -d 'What this leg holds is the volume: its old records are damaged or lost' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l leg -d 'One copy of the volume; may be repeated' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l from -d 'This leg holds the data; it is copied to all others' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l listen -d 'Listen on HOST:PORT; may be repeated' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l unix -d 'Listen on a Unix socket [default: nbd.sock beside the maps]' -r -F
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l allow -d 'Only these addresses may connect over TCP: a range, or one; may be repeated' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l tls-dir -d 'Certificates: TCP listeners speak TLS only, and nbds legs find theirs here' -r -F
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l metrics -d 'Offer figures for Prometheus: HOST:PORT or unix:PATH answer HTTP, a path with a / is a file written anew' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l on-event -d 'Run this by the shell at each event; facts are in the environment' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l min-legs -d 'Refuse writes with fewer legs in sync [default: 1]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l map-block -d 'A bit of a map stands for so many bytes [default: 64K]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l map-durability -d 'What marks survive: process (a kill) or power (a power cut) [default: process]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l read-policy -d 'Which leg answers reads: local, least-pending, round-robin [default: local]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l spin -d 'With at most two requests in flight, ask the sockets for so long before sleeping [default: 20]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -s n -l dry-run -d 'Check everything, print what would be made, change nothing'
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l json -d 'Print what was made as JSON'
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l known-equal -d 'All legs hold the same data already'
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l known-zero -d 'All legs read as zeroes'
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -l insecure -d 'Listen beyond this machine though nothing asks who connects'
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand create" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l config -d 'Read [volume.NAME] of this file; flags are stronger' -r -F
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l leg -d 'One copy of the volume; may be repeated' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l from -d 'This leg holds the data; it is copied to all others' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l listen -d 'Listen on HOST:PORT; may be repeated' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l unix -d 'Listen on a Unix socket [default: nbd.sock beside the maps]' -r -F
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l allow -d 'Only these addresses may connect over TCP: a range, or one; may be repeated' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l tls-dir -d 'Certificates: TCP listeners speak TLS only, and nbds legs find theirs here' -r -F
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l metrics -d 'Offer figures for Prometheus: HOST:PORT or unix:PATH answer HTTP, a path with a / is a file written anew' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l on-event -d 'Run this by the shell at each event; facts are in the environment' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l min-legs -d 'Refuse writes with fewer legs in sync [default: 1]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l map-block -d 'A bit of a map stands for so many bytes [default: 64K]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l map-durability -d 'What marks survive: process (a kill) or power (a power cut) [default: process]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l read-policy -d 'Which leg answers reads: local, least-pending, round-robin [default: local]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l spin -d 'With at most two requests in flight, ask the sockets for so long before sleeping [default: 20]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l ephemeral -d 'A throw-away mirror of the legs that are given: nothing is stored'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -s s -l stdio -d 'One client on standard input and output; stop when it has gone'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l exit-with-parent -d 'Stop when the process that started this one ends'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l known-equal -d 'All legs hold the same data already'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l known-zero -d 'All legs read as zeroes'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -l insecure -d 'Listen beyond this machine though nothing asks who connects'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand serve" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand status" -l watch -d 'Show it again after so long, until stopped' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand status" -l json -d 'One JSON document a line for each volume'
complete -c mirrord -n "__fish_mirrord_using_subcommand status" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand status" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand check" -l behind -d 'CRITICAL when a copy lacks more bytes, or for longer; either may be left out (1G or ,60s)' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand check" -l stall -d 'CRITICAL when a copy that has to be brought back stands still for longer' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand check" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand check" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand wait" -l until -d 'The state' -r -f -a "synced\t'Every leg is connected, `UpToDate` and misses nothing'
connected\t'Every leg is connected'"
complete -c mirrord -n "__fish_mirrord_using_subcommand wait" -l timeout -d 'Give up after so long' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand wait" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand wait" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mirrord -n "__fish_mirrord_using_subcommand events" -l now -d 'Print the present state as events, and end'
complete -c mirrord -n "__fish_mirrord_using_subcommand events" -l json -d 'One JSON document a line'
complete -c mirrord -n "__fish_mirrord_using_subcommand events" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand events" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "add" -d 'Add a leg: everything is missing there, and is copied while the volume goes on'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "remove" -d 'Make a leg a member no more; its device is not touched'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "detach" -d 'Take a leg out until it is attached; its map collects what it misses'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "attach" -d 'Take a leg back; what it missed is copied'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "fail" -d 'Declare a leg failed, without waiting for its deadline'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "replace" -d 'Put a new leg in the place of an old one, which leaves when the new one is up to date'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "set" -d 'Change settings of a leg'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and not __fish_seen_subcommand_from add remove detach attach fail replace set reset" -f -a "reset" -d 'Forget what a leg holds, and its failures: everything is copied to it'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from add" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from remove" -l force -d 'Override what the refusal named: last-copy (only while nobody serves the volume)' -r -f -a "last-copy\t'The last good copy'"
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from remove" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from detach" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from detach" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from attach" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from attach" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from fail" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from fail" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from replace" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from replace" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from set" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from reset" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand leg; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand resync" -l full -d 'Copy everything, whatever the map says'
complete -c mirrord -n "__fish_mirrord_using_subcommand resync" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand resync" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand pause" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand pause" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand resume" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand resume" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand verify" -l repair-from -d 'Copy the blocks that differ from this leg to those that hold something else' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand verify" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand verify" -l json -d 'Print what was found as JSON'
complete -c mirrord -n "__fish_mirrord_using_subcommand verify" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand verify" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand snapshot-barrier" -l timeout -d 'Let writes go on after so long, whatever the command does [default: 10s]' -r
complete -c mirrord -n "__fish_mirrord_using_subcommand snapshot-barrier" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand snapshot-barrier" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand resize" -l grow -d 'As large as its smallest leg'
complete -c mirrord -n "__fish_mirrord_using_subcommand resize" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand resize" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and not __fish_seen_subcommand_from add remove ls" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and not __fish_seen_subcommand_from add remove ls" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and not __fish_seen_subcommand_from add remove ls" -f -a "add" -d 'From now on it marks what changes'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and not __fish_seen_subcommand_from add remove ls" -f -a "remove" -d 'Forget it'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and not __fish_seen_subcommand_from add remove ls" -f -a "ls" -d 'What each holds, a line for each'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and __fish_seen_subcommand_from add" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and __fish_seen_subcommand_from remove" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and __fish_seen_subcommand_from ls" -l json -d 'A JSON document a line, mirrord-tracker/1'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand tracker; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c mirrord -n "__fish_mirrord_using_subcommand check-config" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c mirrord -n "__fish_mirrord_using_subcommand check-config" -s h -l help -d 'Print help'
