#compdef mirror-sync

autoload -U is-at-least

_mirror-sync() {
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
'--map=[The map\: PATH, - for standard input, VOLUME\:TRACKER, or NBD-URI\[#CONTEXT\]]:MAP:_default' \
'(--full --dirty-only)--digest=[Compare with the digests of the last run instead of reading the target]:FILE:_files' \
'(--verify --stage)--delta=[Write a delta to FILE, or - for standard output, instead of a target]:FILE:_files' \
'(--full --compare --dirty-only --digest --delta -n --dry-run)--apply=[Apply a delta from FILE, or - for standard input, to a target]:FILE:_files' \
'(--full --compare --dirty-only --digest --delta)--inspect=[Say what a delta is and check it to its end]:FILE:_files' \
'--generation=[Who holds which generation\: a delta is made from it, or applied only to what it is for]:FILE:_files' \
'(--full --compare --dirty-only --digest --delta --stage -n --dry-run)--undo=[Roll a staged apply back by its undo log]:FILE:_files' \
'--compress=[Pack the data of a delta, and what goes over ssh\://]:HOW:((zstd\:"zstd(1)"))' \
'--rsh=[Reach ssh\:// by this command, such as '\''ssh -4'\'', instead of libssh2]:COMMAND:_default' \
'--remote-path=[Where mirror-sync is on the other machine \[default\: on its PATH\]]:PATH:_default' \
'--tls-dir=[Certificates for nbds\:// where the URI names none]:DIR:_files' \
'--root=[Serve what is beneath DIR, and nothing else]:DIR:_files' \
'--zero=[What becomes of zeroes]:HOW:((detect\:"Holes and zeroes in data become holes"
trust\:"Holes become holes, data is not searched"
off\:"Zeroes are written as data"))' \
'--connections=[Most connections to an NBD server]:N:_default' \
'--queue-depth=[Most requests in flight]:N:_default' \
'--request-size=[Bytes of one request, where there is so much to move]:SIZE:_default' \
'--bwlimit=[Write at most so many bytes a second]:RATE:_default' \
'*--force=[Override a refusal\: mounted, busy, unflushed, foreign; several with commas]:WHAT:((mounted\:"A target that is mounted or claimed by the kernel"
busy\:"A target that another process has open for writing"
unflushed\:"A target that cannot be flushed"
foreign\:"A delta that is for another generation"))' \
'--progress=[JSON lines about the progress to this open file descriptor]:FD:_default' \
'--full[Copy everything, without looking at what the target holds]' \
'--compare[Read both ends, copy what differs (the default)]' \
'--dirty-only[Copy the blocks that are marked in a map, and nothing else]' \
'--keep-map[Leave marks of the map that were copied]' \
'(--verify -n --dry-run --inspect)--stage[All or nothing\: stage what changes beside the target, then apply it with an undo log]' \
'(--full --compare --dirty-only --digest --delta)--redo[Finish a staged apply that was interrupted, and nothing else]' \
'(--full --compare --dirty-only --digest --delta --stage -n --dry-run)--serve[Be the far end of a copy, on standard input and output]' \
'--read-only[Serve reading only]' \
'--verify[Read the target back at the end and compare]' \
'--live[The source may change while it is copied\: the result is not called equal]' \
'-n[Find out what would be done, and do nothing]' \
'--dry-run[Find out what would be done, and do nothing]' \
'--json[Print a summary as JSON]' \
'*-v[Say more]' \
'*--verbose[Say more]' \
'-q[Say nothing but errors]' \
'--quiet[Say nothing but errors]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
'*::places -- What is copied, and where it goes\: PATH, an NBD URI, ssh\://\[USER@\]HOST/PATH, \[ COMMAND \], - for standard input or output, or null\: as a target that keeps nothing:_default' \
&& ret=0
}

(( $+functions[_mirror-sync_commands] )) ||
_mirror-sync_commands() {
    local commands; commands=()
    _describe -t commands 'mirror-sync commands' commands "$@"
}

if [ "$funcstack[1]" = "_mirror-sync" ]; then
    _mirror-sync "$@"
else
    compdef _mirror-sync mirror-sync
fi
