# Questions with validation. Two flags on a question carry what debconf has no other place for:
#   pending  a person has answered and postinst has not handed it on yet. Until then the file does
#            not overrule the answer: debconf runs this script a second time before postinst.
#   dropped  a preseeded value was wrong, and nobody was there to be asked again.

# ask PRIORITY QUESTION KEY VALID EXPLANATION [OFFER]: VALID is one of the functions below,
# EXPLANATION the error template for what it refuses, OFFER what to suggest where there is no answer.
ask() {
    priority=$1 question=$2 key=$3 valid=$4 explanation=$5 offer=${6:-}

    db_fget "$question" pending
    if [ "$RET" != true ] && [ -n "$key" ] && [ -r "$CONFIG" ]; then
        in_force "$question" "$key"
        db_set "$question" "$RET"
        db_fset "$question" dropped false
    fi
    db_fget "$question" dropped
    dropped=$RET
    db_get "$question"
    before=$RET
    if [ -z "$before" ]; then
        if [ "$dropped" = true ] || ! "$valid" ""; then
            db_metaget "$question" default
            offer=$RET
        fi
        db_set "$question" "$offer"
    fi

    db_get "$question"
    shown=no
    if "$valid" "$RET"; then
        if db_input "$priority" "$question"; then shown=yes; fi
        db_go || true
    fi
    while db_get "$question" && ! "$valid" "$RET"; do
        if ! explain; then
            db_set "$question" ""
            db_fset "$question" dropped true
            return
        fi
        shown=yes
    done

    if [ "$shown" = yes ]; then
        db_fset "$question" pending true
        db_fset "$question" dropped false
    elif [ -n "$before" ]; then
        db_fset "$question" dropped false
    else
        db_set "$question" ""
    fi
}

# Says what is wrong with the answer and asks again; fails where nobody can be asked.
explain() {
    db_fset "$question" seen false
    if ! db_input critical "$question"; then
        # Else the frontend would mail the error to root, or take the first choice of a list.
        db_clear
        return 1
    fi
    db_clear
    case $question in
    # An enrolment is a secret, and what is put into a text stays in the database.
    */enrolment*) ;;
    *)
        db_get "$question"
        db_subst "$explanation" answer "$RET"
        ;;
    esac
    db_fset "$explanation" seen false
    db_input critical "$explanation" || true
    db_input critical "$question" || return 1
    db_go || true
}

# The volume groups of this machine, separated by blanks; none where LVM is not there yet.
groups=$(LVM_SUPPRESS_FD_WARNINGS=1 timeout 20 vgs --noheadings -o vg_name 2>/dev/null </dev/null |
    tr -s ' \n' ' ' | sed 's/^ //; s/ $//') || groups=

# ask_volume_group QUESTION EXPLANATION: the group is suggested where there is only one.
ask_volume_group() {
    listed=$(printf '%s' "$groups" | sed 's/ /, /g')
    db_subst "$1" groups "${listed:--}"
    db_subst "$2" groups "${listed:--}"
    only=
    case $groups in
    *' '*) ;;
    *) only=$groups ;;
    esac
    ask high "$1" site.volume_group valid_volume_group "$2" "$only"
}

matches() {
    printf '%s\n' "$2" | LC_ALL=C grep -Eqx -e "$1"
}

# Empty is allowed where it means "later".
valid_volume_group() {
    [ -n "$1" ] || return 0
    matches '[A-Za-z0-9+_.][A-Za-z0-9+_.-]*' "$1" || return 1
    # Whether the group exists is only checked where somebody can choose another: an image is
    # often built on a machine that does not have the group.
    [ "$shown" = yes ] && [ -n "$groups" ] || return 0
    case " $groups " in
    *" $1 "*) ;;
    *) return 1 ;;
    esac
}

valid_mail() {
    [ -z "$1" ] || matches '[A-Za-z0-9._%+-]+(@[A-Za-z0-9.-]*[A-Za-z0-9])?' "$1"
}
