# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_dirtymap_global_optspecs
    string join \n n/dry-run v/verbose q/quiet h/help V/version
end

function __fish_dirtymap_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_dirtymap_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_dirtymap_using_subcommand
    set -l cmd (__fish_dirtymap_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c dirtymap -n "__fish_dirtymap_needs_command" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -s V -l version -d 'Print version'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "create" -d 'Make a map in which nothing is dirty, or everything'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "show" -d 'Show a map: its facts and a small picture, or its ranges'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "stat" -d 'One line for each map: how much is dirty'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "check" -d 'Whether anything is dirty: 0 clean, 1 dirty'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "set" -d 'Make every block dirty that a range touches'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "clear" -d 'Make every block clean that lies in a range as a whole'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "rotate" -d 'Close the marks of a tracker into a map of their own, while mirrord writes'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "or" -d 'What is dirty in any of the maps'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "and" -d 'What is dirty in all of the maps'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "sub" -d 'What is dirty in the first map and in no other'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "xor" -d 'What is dirty in an odd number of the maps'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "invert" -d 'What is not dirty'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "grow" -d 'The same map in larger blocks'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "resize" -d 'The map of a volume that was resized'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "shift" -d 'The map of a volume whose bytes have moved: a partition in its disk'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "convert" -d 'Translate between formats'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "fetch" -d 'Make a map of what an NBD server says about its export'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "digest" -d 'Write the BLAKE3 digests of a device, block by block'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "diff" -d 'Make a map of what differs between two devices or manifests: 0 equal, 1 differs'
complete -c dirtymap -n "__fish_dirtymap_needs_command" -f -a "size" -d 'How large a map is'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -l size -d 'Size of the volume' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -l like -d 'As large as this device' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -l block -d 'A bit stands for so many bytes [default: 64K]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -l volume -d 'Of which volume it is: 32 hexadecimal digits [default: none]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -l all -d 'Every block is dirty'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -l replace -d 'Replace MAP if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand create" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -l range -d 'Only what is dirty in this range' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -l json -d 'Print a JSON document, dirtymap-extents/1'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -l list -d 'Print OFFSET LENGTH, a line for each run'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -l bitmap -d 'Print a character for each block'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand show" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand stat" -l json -d 'Print a JSON document a line for each, dirtymap-stat/1'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand stat" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand stat" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand stat" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand stat" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand check" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand check" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand check" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand check" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand set" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand set" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand set" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand set" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand clear" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand clear" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand clear" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand clear" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand clear" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand rotate" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand rotate" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand rotate" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand rotate" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand rotate" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -l block -d 'Blocks of the result [default: the largest of the maps]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand or" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -l block -d 'Blocks of the result [default: the largest of the maps]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand and" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -l block -d 'Blocks of the result [default: the largest of the maps]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand sub" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -l block -d 'Blocks of the result [default: the largest of the maps]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand xor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand invert" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand invert" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand invert" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand invert" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand invert" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand invert" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand grow" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand grow" -l block -d 'Bytes of the new blocks' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand grow" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand grow" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand grow" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand grow" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand grow" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand resize" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand resize" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand resize" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand resize" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand resize" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand resize" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand resize" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -l size -d 'Size of the result [default: as much more or less]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand shift" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l from -d 'Format of IN' -r -f -a "map\t''
extents\t''
list\t''
bitmap-le\t''
bitmap-be\t''
ddrescue\t''
bmap\t''
era\t''
thin-delta\t''
rbd\t''
nbdinfo\t''
qemu-map\t''
qemu-bitmap\t''"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l to -d 'Format of OUT' -r -f -a "map\t''
extents\t''
list\t''
bitmap-le\t''
bitmap-be\t''
ddrescue\t''
bmap\t''
era\t''
thin-delta\t''
rbd\t''
nbdinfo\t''
qemu-map\t''
qemu-bitmap\t''"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l size -d 'Size of the volume, where IN does not say it' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l like -d 'The size of this device' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l block -d 'Blocks of OUT [default: those of IN, or 64K]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l unit -d 'Blocks of IN, where it counts them without saying how large they are [default: --block]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l volume -d 'Of which volume the map is: 32 hexadecimal digits' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l statuses -d 'Statuses of ddrescue that are dirty [default: ?*/-]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l since -d 'Of an era dump, blocks are dirty that were written in this era or later' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand convert" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -l tls-dir -d 'Certificates for nbds:// where the URI names none' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -l context -d 'Which metadata context [default: base:allocation]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -l block -d 'A bit stands for so many bytes [default: 64K]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -l volume -d 'Of which volume the map is: 32 hexadecimal digits [default: none]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand fetch" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -l rsh -d 'Reach ssh:// by this command, such as \'ssh -4\', instead of libssh2' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -l remote-path -d 'Where mirror-sync is on the other machine [default: on its PATH]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -l tls-dir -d 'Certificates for nbds:// where the URI names none' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -l block -d 'A digest is of so many bytes [default: 64K]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -l volume -d 'Of which volume the device is: 32 hexadecimal digits [default: none]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand digest" -s h -l help -d 'Print help'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -l rsh -d 'Reach ssh:// by this command, such as \'ssh -4\', instead of libssh2' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -l remote-path -d 'Where mirror-sync is on the other machine [default: on its PATH]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -l tls-dir -d 'Certificates for nbds:// where the URI names none' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -l block -d 'Blocks of the map [default: those of a manifest, or 64K]' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -l progress -d 'Write progress as JSON lines to this open file descriptor' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -l force -d 'Override a refusal: volume, generation, size, cut, leg; several with commas' -r -f -a "volume\t'Maps of different volumes'
generation\t'Maps relative to different generations'
size\t'Maps of different sizes'
cut\t'Dirty blocks would be cut off'
leg\t'Marks are taken out of the map of a leg'"
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -s o -l output -d 'Where the result goes [default: standard output]' -r -F
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -l replace -d 'Replace OUT if it exists'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -l size -d 'Size of the volume' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -l like -d 'As large as this device' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -l block -d 'Only in blocks of this size' -r
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -l json -d 'Print a JSON document, dirtymap-size/1'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -s n -l dry-run -d 'Check everything, print what would be done, change nothing'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -s v -l verbose -d 'Say what was done'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -s q -l quiet -d 'Say nothing that is not asked for, except errors'
complete -c dirtymap -n "__fish_dirtymap_using_subcommand size" -s h -l help -d 'Print help'
