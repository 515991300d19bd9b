# Read by scripts/run and scripts/test: messages, and the packages of scripts/packages. Needs bash
# alone: on a bare system neither Python nor a compiler is there yet.

say() { printf '%s: %s\n' "$prog" "$*"; }

# die MESSAGE... [-- WHAT TO DO]: what failed, and what helps.
die() {
    printf '%s: error: %s\n' "$prog" "$1" >&2
    shift
    local line
    for line in "$@"; do printf '%s:        %s\n' "$prog" "$line" >&2; done
    exit 1
}

# present SIGN: is what scripts/packages names in its third column there?
present() {
    case "$1" in
    cmd:*) command -v "${1#cmd:}" >/dev/null 2>&1 ;;
    pc:*) command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "${1#pc:}" ;;
    file:*) [ -e "${1#file:}" ] ;;
    header:*) command -v gcc >/dev/null 2>&1 &&
        echo "#include <${1#header:}>" | gcc -E - >/dev/null 2>&1 ;;
    python:*) command -v python3 >/dev/null 2>&1 && python3 -c "import ${1#python:}" 2>/dev/null ;;
    *) return 1 ;;
    esac
}

# missing_packages WHO: the packages of WHO that are not there, one a line. One call of dpkg-query
# (10 ms) answers for all; only what it does not know of is looked for by its sign.
missing_packages() {
    local who=$1 set name sign have=
    local -a names=() signs=()
    while read -r set name sign; do
        [ "$set" = "$who" ] || continue
        names+=("$name")
        signs+=("$sign")
    done <"$repo/scripts/packages"
    if command -v dpkg-query >/dev/null 2>&1; then
        have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${names[@]}" 2>/dev/null || true)
    fi
    local i
    for i in "${!names[@]}"; do
        [[ $'\n'"$have"$'\n' == *$'\n'"${names[i]} installed"$'\n'* ]] && continue
        present "${signs[i]}" || printf '%s\n' "${names[i]}"
    done
}

# install_packages WHO: installs what is missing, and says so first. Nothing missing: no apt-get at all.
install_packages() {
    local -a missing as_root=()
    mapfile -t missing < <(missing_packages "$1")
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        die "this is not a Debian system, and these are missing (by their Debian names):" \
            "${missing[*]}" "Install what your system calls them, then call $prog again."
    fi
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 ||
            die "these Debian packages are missing: ${missing[*]}" \
                "Neither root nor sudo is here to install them. As root:" \
                "  apt-get update && apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${#missing[@]} Debian packages with apt-get: ${missing[*]}"
    local log
    log=$(mktemp)
    local -a apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y
        -o Dpkg::Use-Pty=0)
    if ! "${apt[@]}" update >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        die "apt-get update failed; its last words are above." \
            "Is there a network, and is /etc/apt/sources.list right?"
    fi
    if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        rm -f "$log"
        die "apt-get install failed; its last words are above." \
            "Repeat it by hand to see more: apt-get install --no-install-recommends ${missing[*]}"
    fi
    rm -f "$log"
    hash -r
}
