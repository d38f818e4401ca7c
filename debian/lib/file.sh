# The configuration file is the truth, debconf only asks: the scripts begin with what the file says.

CONFIG=/etc/drbd-offsite/drbd-offsite.conf

# from_file KEY: the value of SECTION.KEY or SECTION.SUBSECTION.KEY; fails where the file has none.
from_file() {
    [ -r "$CONFIG" ] || return 1
    awk -v wanted="$1" '
        { gsub(/^[ \t]+|[ \t\r]+$/, "") }
        /^#/ { next }
        /^\[/ {
            depth = match($0, /[^[]/) - 1
            gsub(/#.*|[][ \t"\047]/, "")
            path[depth] = $0
            place = path[1]
            for (level = 2; level <= depth; level++) place = place "." path[level]
            next
        }
        {
            equals = index($0, "=")
            key = substr($0, 1, equals - 1)
            gsub(/[ \t"\047]/, "", key)
            if (!equals || place "." key != wanted) next
            value = substr($0, equals + 1)
            sub(/^[ \t]+/, "", value)
            mark = substr(value, 1, 1)
            if (mark == "\"" || mark == "\047") {
                value = substr(value, 2)
                value = substr(value, 1, index(value, mark) - 1)
            } else {
                sub(/[ \t]*#.*/, "", value)
            }
            print value
            found = 1
            exit
        }
        END { exit !found }
    ' "$CONFIG"
}

# in_force QUESTION KEY: sets RET to what holds for KEY, put as an answer to QUESTION. A key that is
# not in the file has its default, which is the template's too.
in_force() {
    if ! RET=$(from_file "$2"); then
        db_metaget "$1" default
        return
    fi
    case $2 in
    *.battery_backed_cache)
        case $RET in
        [Yy]es | [Oo]n | [Tt]rue | 1) RET=true ;;
        *) RET=false ;;
        esac
        ;;
    esac
}
