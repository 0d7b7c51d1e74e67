complete -c mirror-sync -l map -d 'The map: PATH, - for standard input, VOLUME:TRACKER, or NBD-URI[#CONTEXT]' -r
complete -c mirror-sync -l digest -d 'Compare with the digests of the last run instead of reading the target' -r -F
complete -c mirror-sync -l delta -d 'Write a delta to FILE, or - for standard output, instead of a target' -r -F
complete -c mirror-sync -l apply -d 'Apply a delta from FILE, or - for standard input, to a target' -r -F
complete -c mirror-sync -l inspect -d 'Say what a delta is and check it to its end' -r -F
complete -c mirror-sync -l generation -d 'Who holds which generation: a delta is made from it, or applied only to what it is for' -r -F
complete -c mirror-sync -l undo -d 'Roll a staged apply back by its undo log' -r -F
complete -c mirror-sync -l compress -d 'Pack the data of a delta, and what goes over ssh://' -r -f -a "zstd\t'zstd(1)'"
complete -c mirror-sync -l rsh -d 'Reach ssh:// by this command, such as \'ssh -4\', instead of libssh2' -r
complete -c mirror-sync -l remote-path -d 'Where mirror-sync is on the other machine [default: on its PATH]' -r
complete -c mirror-sync -l tls-dir -d 'Certificates for nbds:// where the URI names none' -r -F
complete -c mirror-sync -l root -d 'Serve what is beneath DIR, and nothing else' -r -F
complete -c mirror-sync -l zero -d 'What becomes of zeroes' -r -f -a "detect\t'Holes and zeroes in data become holes'
trust\t'Holes become holes, data is not searched'
off\t'Zeroes are written as data'"
complete -c mirror-sync -l connections -d 'Most connections to an NBD server' -r
complete -c mirror-sync -l queue-depth -d 'Most requests in flight' -r
complete -c mirror-sync -l request-size -d 'Bytes of one request, where there is so much to move' -r
complete -c mirror-sync -l bwlimit -d 'Write at most so many bytes a second' -r
complete -c mirror-sync -l force -d 'Override a refusal: mounted, busy, unflushed, foreign; several with commas' -r -f -a "mounted\t'A target that is mounted or claimed by the kernel'
busy\t'A target that another process has open for writing'
unflushed\t'A target that cannot be flushed'
foreign\t'A delta that is for another generation'"
complete -c mirror-sync -l progress -d 'JSON lines about the progress to this open file descriptor' -r
complete -c mirror-sync -l full -d 'Copy everything, without looking at what the target holds'
complete -c mirror-sync -l compare -d 'Read both ends, copy what differs (the default)'
complete -c mirror-sync -l dirty-only -d 'Copy the blocks that are marked in a map, and nothing else'
complete -c mirror-sync -l keep-map -d 'Leave marks of the map that were copied'
complete -c mirror-sync -l stage -d 'All or nothing: stage what changes beside the target, then apply it with an undo log'
complete -c mirror-sync -l redo -d 'Finish a staged apply that was interrupted, and nothing else'
complete -c mirror-sync -l serve -d 'Be the far end of a copy, on standard input and output'
complete -c mirror-sync -l read-only -d 'Serve reading only'
complete -c mirror-sync -l verify -d 'Read the target back at the end and compare'
complete -c mirror-sync -l live -d 'The source may change while it is copied: the result is not called equal'
complete -c mirror-sync -s n -l dry-run -d 'Find out what would be done, and do nothing'
complete -c mirror-sync -l json -d 'Print a summary as JSON'
complete -c mirror-sync -s v -l verbose -d 'Say more'
complete -c mirror-sync -s q -l quiet -d 'Say nothing but errors'
complete -c mirror-sync -s h -l help -d 'Print help (see more with \'--help\')'
complete -c mirror-sync -s V -l version -d 'Print version'
