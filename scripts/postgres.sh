# shellcheck shell=bash
# A PostgreSQL of one's own, for a script to source: start_postgres [SETTING...] sets TEST_DATABASE_URL, and stops it at
# the end. Its files are in POSTGRES_DIRECTORY, where postgres can reach them, and whose name is short enough for a socket.

# The newest PostgreSQL's programs, which Debian keeps off the PATH; nothing where there is none.
postgres_bin() {
    find /usr/lib/postgresql -path '*/bin/initdb' -printf '%h\n' 2>/dev/null | sort -V | tail -n 1
}

# PostgreSQL refuses to run as root.
as_postgres() {
    if ((EUID == 0)); then runuser -u postgres -- "$@"; else "$@"; fi
}

start_postgres() {
    bin=$(postgres_bin)
    data=$(mktemp -d "${POSTGRES_DIRECTORY:-/tmp}/profile-test.XXXXXX")
    trap stop_postgres EXIT
    if ((EUID == 0)); then chown postgres "$data"; fi
    local port
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    as_postgres "$bin/initdb" -D "$data/db" -U postgres -E UTF8 --locale=C.UTF-8 --auth=trust --no-sync >/dev/null
    # In the file, where a restart finds them too.
    printf '%s\n' "port = $port" "listen_addresses = '127.0.0.1'" "unix_socket_directories = '$data'" 'fsync = off' \
        'max_connections = 300' "$@" | as_postgres tee -a "$data/db/postgresql.conf" >/dev/null
    as_postgres "$bin/pg_ctl" -w -s -D "$data/db" -l "$data/log" start || { cat "$data/log"; exit 1; }
    TEST_DATABASE_URL=postgres://postgres@127.0.0.1:$port/postgres
}

stop_postgres() {
    if [[ -e $data/db/postmaster.pid ]]; then as_postgres "$bin/pg_ctl" -w -s -D "$data/db" -m immediate stop; fi
    rm -rf "$data"
}
