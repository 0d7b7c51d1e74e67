#compdef dirtymap

autoload -U is-at-least

_dirtymap() {
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
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_dirtymap_commands" \
"*::: :->dirtymap" \
&& ret=0
    case $state in
    (dirtymap)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:dirtymap-command-$line[1]:"
        case $line[1] in
            (create)
_arguments "${_arguments_options[@]}" : \
'(--like)--size=[Size of the volume]:SIZE:_default' \
'--like=[As large as this device]:DEVICE:_default' \
'--block=[A bit stands for so many bytes \[default\: 64K\]]:SIZE:_default' \
'--volume=[Of which volume it is\: 32 hexadecimal digits \[default\: none\]]:ID:_default' \
'--all[Every block is dirty]' \
'--replace[Replace MAP if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':map -- The new map; - is standard output:_files' \
&& ret=0
;;
(show)
_arguments "${_arguments_options[@]}" : \
'--range=[Only what is dirty in this range]:RANGE:_default' \
'--json[Print a JSON document, dirtymap-extents/1]' \
'--list[Print OFFSET LENGTH, a line for each run]' \
'--bitmap[Print a character for each block]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':map -- The map:_default' \
&& ret=0
;;
(stat)
_arguments "${_arguments_options[@]}" : \
'--json[Print a JSON document a line for each, dirtymap-stat/1]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'*::maps -- The maps:_default' \
&& ret=0
;;
(check)
_arguments "${_arguments_options[@]}" : \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':map -- The map:_default' \
&& ret=0
;;
(set)
_arguments "${_arguments_options[@]}" : \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':map -- The map; - reads standard input and writes standard output:_default' \
'*::ranges -- OFFSET+LENGTH or OFFSET..END:_default' \
&& ret=0
;;
(clear)
_arguments "${_arguments_options[@]}" : \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':map -- The map; - reads standard input and writes standard output:_default' \
'*::ranges -- OFFSET+LENGTH or OFFSET..END:_default' \
&& ret=0
;;
(rotate)
_arguments "${_arguments_options[@]}" : \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':from -- VOLUME\:TRACKER of a running mirrord:_default' \
':output -- The new map:_files' \
&& ret=0
;;
(or)
_arguments "${_arguments_options[@]}" : \
'--block=[Blocks of the result \[default\: the largest of the maps\]]:SIZE:_default' \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::maps -- The maps; - is standard input:_default' \
&& ret=0
;;
(and)
_arguments "${_arguments_options[@]}" : \
'--block=[Blocks of the result \[default\: the largest of the maps\]]:SIZE:_default' \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::maps -- The maps; - is standard input:_default' \
&& ret=0
;;
(sub)
_arguments "${_arguments_options[@]}" : \
'--block=[Blocks of the result \[default\: the largest of the maps\]]:SIZE:_default' \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::maps -- The maps; - is standard input:_default' \
&& ret=0
;;
(xor)
_arguments "${_arguments_options[@]}" : \
'--block=[Blocks of the result \[default\: the largest of the maps\]]:SIZE:_default' \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'*::maps -- The maps; - is standard input:_default' \
&& ret=0
;;
(invert)
_arguments "${_arguments_options[@]}" : \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':map -- The map; - is standard input:_default' \
&& ret=0
;;
(grow)
_arguments "${_arguments_options[@]}" : \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--block=[Bytes of the new blocks]:SIZE:_default' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':map -- The map; - is standard input:_default' \
&& ret=0
;;
(resize)
_arguments "${_arguments_options[@]}" : \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':map -- The map; - is standard input:_default' \
':size -- The new size; what is new is dirty:_default' \
&& ret=0
;;
(shift)
_arguments "${_arguments_options[@]}" : \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--size=[Size of the result \[default\: as much more or less\]]:SIZE:_default' \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':map -- The map; - is standard input:_default' \
':by -- How far marks move, like +1M or -512K:_default' \
&& ret=0
;;
(convert)
_arguments "${_arguments_options[@]}" : \
'--from=[Format of IN]:FORMAT:(map extents list bitmap-le bitmap-be ddrescue bmap era thin-delta rbd nbdinfo qemu-map qemu-bitmap)' \
'--to=[Format of OUT]:FORMAT:(map extents list bitmap-le bitmap-be ddrescue bmap era thin-delta rbd nbdinfo qemu-map qemu-bitmap)' \
'(--like)--size=[Size of the volume, where IN does not say it]:SIZE:_default' \
'--like=[The size of this device]:DEVICE:_default' \
'--block=[Blocks of OUT \[default\: those of IN, or 64K\]]:SIZE:_default' \
'--unit=[Blocks of IN, where it counts them without saying how large they are \[default\: --block\]]:SIZE:_default' \
'--volume=[Of which volume the map is\: 32 hexadecimal digits]:ID:_default' \
'--statuses=[Statuses of ddrescue that are dirty \[default\: ?*/-\]]:STATUSES:_default' \
'--since=[Of an era dump, blocks are dirty that were written in this era or later]:ERA:_default' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
'::input -- What is read \[default\: standard input\]:_default' \
'::output -- What is written \[default\: standard output\]:_files' \
&& ret=0
;;
(fetch)
_arguments "${_arguments_options[@]}" : \
'--tls-dir=[Certificates for nbds\:// where the URI names none]:DIR:_files' \
'--context=[Which metadata context \[default\: base\:allocation\]]:NAME:_default' \
'--block=[A bit stands for so many bytes \[default\: 64K\]]:SIZE:_default' \
'--volume=[Of which volume the map is\: 32 hexadecimal digits \[default\: none\]]:ID:_default' \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':uri -- The export of any NBD server:_default' \
&& ret=0
;;
(digest)
_arguments "${_arguments_options[@]}" : \
'--rsh=[Reach ssh\:// by this command, such as '\''ssh -4'\'', instead of libssh2]:COMMAND:_default' \
'--remote-path=[Where mirror-sync is on the other machine \[default\: on its PATH\]]:PATH:_default' \
'--tls-dir=[Certificates for nbds\:// where the URI names none]:DIR:_files' \
'--block=[A digest is of so many bytes \[default\: 64K\]]:SIZE:_default' \
'--volume=[Of which volume the device is\: 32 hexadecimal digits \[default\: none\]]:ID:_default' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
':device -- A file, a block device, an NBD export, or ssh\://\[USER@\]HOST/PATH, which is read over there:_default' \
&& ret=0
;;
(diff)
_arguments "${_arguments_options[@]}" : \
'--rsh=[Reach ssh\:// by this command, such as '\''ssh -4'\'', instead of libssh2]:COMMAND:_default' \
'--remote-path=[Where mirror-sync is on the other machine \[default\: on its PATH\]]:PATH:_default' \
'--tls-dir=[Certificates for nbds\:// where the URI names none]:DIR:_files' \
'--block=[Blocks of the map \[default\: those of a manifest, or 64K\]]:SIZE:_default' \
'--progress=[Write progress as JSON lines to this open file descriptor]:FD:_default' \
'*--force=[Override a refusal\: volume, generation, size, cut, leg; several with commas]:WHAT:((volume\:"Maps of different volumes"
generation\:"Maps relative to different generations"
size\:"Maps of different sizes"
cut\:"Dirty blocks would be cut off"
leg\:"Marks are taken out of the map of a leg"))' \
'-o+[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--output=[Where the result goes \[default\: standard output\]]:OUT:_files' \
'--replace[Replace OUT if it exists]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':a -- A device or a manifest:_default' \
':b -- A device or a manifest:_default' \
&& ret=0
;;
(size)
_arguments "${_arguments_options[@]}" : \
'(--like)--size=[Size of the volume]:SIZE:_default' \
'--like=[As large as this device]:DEVICE:_default' \
'--block=[Only in blocks of this size]:SIZE:_default' \
'--json[Print a JSON document, dirtymap-size/1]' \
'-n[Check everything, print what would be done, change nothing]' \
'--dry-run[Check everything, print what would be done, change nothing]' \
'(-q --quiet)*-v[Say what was done]' \
'(-q --quiet)*--verbose[Say what was done]' \
'-q[Say nothing that is not asked for, except errors]' \
'--quiet[Say nothing that is not asked for, except errors]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
        esac
    ;;
esac
}

(( $+functions[_dirtymap_commands] )) ||
_dirtymap_commands() {
    local commands; commands=(
'create:Make a map in which nothing is dirty, or everything' \
'show:Show a map\: its facts and a small picture, or its ranges' \
'stat:One line for each map\: how much is dirty' \
'check:Whether anything is dirty\: 0 clean, 1 dirty' \
'set:Make every block dirty that a range touches' \
'clear:Make every block clean that lies in a range as a whole' \
'rotate:Close the marks of a tracker into a map of their own, while mirrord writes' \
'or:What is dirty in any of the maps' \
'and:What is dirty in all of the maps' \
'sub:What is dirty in the first map and in no other' \
'xor:What is dirty in an odd number of the maps' \
'invert:What is not dirty' \
'grow:The same map in larger blocks' \
'resize:The map of a volume that was resized' \
'shift:The map of a volume whose bytes have moved\: a partition in its disk' \
'convert:Translate between formats' \
'fetch:Make a map of what an NBD server says about its export' \
'digest:Write the BLAKE3 digests of a device, block by block' \
'diff:Make a map of what differs between two devices or manifests\: 0 equal, 1 differs' \
'size:How large a map is' \
    )
    _describe -t commands 'dirtymap commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__and_commands] )) ||
_dirtymap__subcmd__and_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap and commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__check_commands] )) ||
_dirtymap__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap check commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__clear_commands] )) ||
_dirtymap__subcmd__clear_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap clear commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__convert_commands] )) ||
_dirtymap__subcmd__convert_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap convert commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__create_commands] )) ||
_dirtymap__subcmd__create_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap create commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__diff_commands] )) ||
_dirtymap__subcmd__diff_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap diff commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__digest_commands] )) ||
_dirtymap__subcmd__digest_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap digest commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__fetch_commands] )) ||
_dirtymap__subcmd__fetch_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap fetch commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__grow_commands] )) ||
_dirtymap__subcmd__grow_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap grow commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__invert_commands] )) ||
_dirtymap__subcmd__invert_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap invert commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__or_commands] )) ||
_dirtymap__subcmd__or_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap or commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__resize_commands] )) ||
_dirtymap__subcmd__resize_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap resize commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__rotate_commands] )) ||
_dirtymap__subcmd__rotate_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap rotate commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__set_commands] )) ||
_dirtymap__subcmd__set_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap set commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__shift_commands] )) ||
_dirtymap__subcmd__shift_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap shift commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__show_commands] )) ||
_dirtymap__subcmd__show_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap show commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__size_commands] )) ||
_dirtymap__subcmd__size_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap size commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__stat_commands] )) ||
_dirtymap__subcmd__stat_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap stat commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__sub_commands] )) ||
_dirtymap__subcmd__sub_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap sub commands' commands "$@"
}
(( $+functions[_dirtymap__subcmd__xor_commands] )) ||
_dirtymap__subcmd__xor_commands() {
    local commands; commands=()
    _describe -t commands 'dirtymap xor commands' commands "$@"
}

if [ "$funcstack[1]" = "_dirtymap" ]; then
    _dirtymap "$@"
else
    compdef _dirtymap dirtymap
fi
