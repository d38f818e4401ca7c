# Hands the answers to "drbd-offsite configure", which writes what differs and nothing else.

answers=
unanswered=

# answer QUESTION KEY [optional]: one line for the command, if the answer is not what holds already.
answer() {
    db_fset "$1" pending false
    db_fget "$1" dropped
    if [ "$RET" = true ]; then
        unanswered="$unanswered ${1#*/}"
        return
    fi
    db_get "$1"
    wanted=$RET
    if [ -z "$wanted" ] && [ "${3:-}" != optional ] && [ ! -e "$CONFIG" ]; then
        unanswered="$unanswered ${1#*/}"
        return
    fi
    if [ -e "$CONFIG" ]; then
        in_force "$1" "$2"
        [ "$RET" != "$wanted" ] || return 0
    fi
    case $2 in
    *.battery_backed_cache)
        if [ "$wanted" = true ]; then wanted=yes; else wanted=no; fi
        ;;
    esac
    answers="$answers$2=$wanted
"
}

# apply FLAVOUR: fails where the machine is not configured afterwards, having said so in one line.
apply() {
    again="dpkg-reconfigure drbd-offsite-$1"
    if [ -n "$unanswered" ]; then
        echo "drbd-offsite-$1: not configured, nothing was applied; no usable answer to:$unanswered. Run: $again" >&2
        return 1
    fi
    if ! printf '%s' "$answers" | drbd-offsite configure "$1"; then
        echo "drbd-offsite-$1: not configured, for the reason above. Run: $again" >&2
        return 1
    fi
    # They wait for a configuration; nothing that runs depends on them.
    if [ -d /run/systemd/system ]; then
        deb-systemd-invoke restart drbd-offsite-watch.service drbd-offsite-mark.service >/dev/null || true
    fi
}
