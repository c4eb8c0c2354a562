# For the scripts beside this: the name of each step and its seconds.

part=""
began=0
step() {  # the seconds of the step before, and the name of the next
    [ -z "$part" ] || printf '== %d s: %s\n' $((SECONDS - began)) "$part"
    part=$*
    began=$SECONDS
    [ -z "$part" ] || printf '\n== %s\n' "$part"
}
