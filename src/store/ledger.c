/* Owns ledger.db. Refuses to believe what it cannot read or what cannot be. Calls are serialised.
 */
#include "store/ledger.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "store/sqlite.h"

enum { VERSION = 1, APPLICATION = 0x41736c67, BUSY_MS = 200, MAX_VALUE = 1 << 16 };
static const uint64_t MOST_BYTES = 1ull << 50;
static const double MOST_MS = 1e9, LEAST_RATE = 1.0, MOST_RATE = 1e15; /* the last two are PUT_RATE's, too */

static const char SCHEMA[] = "CREATE TABLE IF NOT EXISTS model(id TEXT NOT NULL, revision TEXT NOT "
                             "NULL, variant TEXT NOT NULL, "
                             "ctx INTEGER NOT NULL, weights INTEGER, kv INTEGER, scratch INTEGER, "
                             "draft INTEGER, file INTEGER, "
                             "grown INTEGER, load_ms REAL, fetch_ms REAL, verify_ms REAL, map_ms "
                             "REAL, pack_ms REAL, warm_ms REAL, "
                             "prefill_ms REAL, loads INTEGER, seq INTEGER, PRIMARY KEY(id, "
                             "revision, variant, ctx)) WITHOUT ROWID;"
                             "CREATE INDEX IF NOT EXISTS model_seq ON model(seq);"
                             "CREATE TABLE IF NOT EXISTS rate(what TEXT PRIMARY KEY, value REAL) "
                             "WITHOUT ROWID;"
                             "CREATE TABLE IF NOT EXISTS experts(id TEXT NOT NULL, revision TEXT NOT "
                             "NULL, part INTEGER NOT NULL, room REAL, found REAL, seq INTEGER, "
                             "PRIMARY KEY(id, revision, part)) WITHOUT ROWID;"
                             "CREATE INDEX IF NOT EXISTS experts_seq ON experts(seq);";

static const char FIND[] =
    "SELECT weights, kv, scratch, draft, file, grown, load_ms, fetch_ms, verify_ms, map_ms, "
    "pack_ms, warm_ms, "
    "prefill_ms, loads FROM model WHERE id=?1 AND revision=?2 AND variant=?3 AND ctx=?4";

static const char PUT[] =
    "INSERT INTO model VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,1,"
    "(SELECT ifnull(max(seq),0)+1 FROM model)) ON CONFLICT(id, revision, variant, ctx) DO UPDATE "
    "SET "
    "weights=excluded.weights, kv=excluded.kv, scratch=excluded.scratch, draft=excluded.draft, "
    "file=excluded.file, grown=CASE excluded.grown WHEN 0 THEN grown ELSE excluded.grown END, "
    "load_ms=excluded.load_ms, fetch_ms=excluded.fetch_ms, verify_ms=excluded.verify_ms, "
    "map_ms=excluded.map_ms, pack_ms=excluded.pack_ms, warm_ms=excluded.warm_ms, "
    "prefill_ms=excluded.prefill_ms, loads=loads+1, seq=excluded.seq";

static const char PRUNE[] = "DELETE FROM model WHERE seq <= (SELECT max(seq) FROM model) - ?1";

static const char FIND_RATE[] = "SELECT value FROM rate WHERE what=?1";

static const char PUT_RATE[] =
    "INSERT INTO rate VALUES(?1,?2) ON CONFLICT(what) DO UPDATE SET "
    "value=CASE WHEN value BETWEEN 1.0 AND 1e15 THEN (value+excluded.value)/2 ELSE excluded.value END";

static const char FIND_FOUND[] =
    "SELECT room, found FROM experts WHERE id=?1 AND revision=?2 AND room BETWEEN 0.0 AND 1.0 AND "
    "found BETWEEN 0.0 AND 1.0 ORDER BY room LIMIT ?3";

static const char PUT_FOUND[] =
    "INSERT INTO experts VALUES(?1,?2,?3,?4,?5,(SELECT ifnull(max(seq),0)+1 FROM experts)) ON "
    "CONFLICT(id, revision, part) DO UPDATE SET "
    "room=CASE WHEN room BETWEEN 0.0 AND 1.0 AND found BETWEEN 0.0 AND 1.0 THEN "
    "(room+excluded.room)/2 ELSE excluded.room END, "
    "found=CASE WHEN room BETWEEN 0.0 AND 1.0 AND found BETWEEN 0.0 AND 1.0 THEN "
    "(found+excluded.found)/2 ELSE excluded.found END, seq=excluded.seq";

static const char PRUNE_FOUND[] =
    "DELETE FROM experts WHERE seq <= (SELECT max(seq) FROM experts) - ?1";

struct ash_ledger {
    pthread_mutex_t mutex;
    char *dir, *path;
    ash_sqlite sql;
    bool have_sql, no_sql, told;
    sqlite3 *db;
    dev_t dev; /* of the open file: whether it was deleted */
    ino_t ino;
};

static void tell_once(ash_ledger *l, const char *what)
{
    if (!l->told) ash_warn("ledger", "%s: %s; measurements are not kept", l->path, what);
    l->told = true;
}

static void shut(ash_ledger *l)
{
    if (l->db) l->sql.close_v2(l->db);
    l->db = NULL;
}

/* A file that cannot be believed makes place. */
static void set_aside(ash_ledger *l, const char *why)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    char from[PATH_MAX], to[PATH_MAX];
    shut(l);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(from, sizeof from, "%s%s", l->path, ends[i]);
        snprintf(to, sizeof to, "%s.damaged%s", l->path, ends[i]);
        if (rename(from, to) && errno != ENOENT) tell_once(l, strerror(errno));
    }
    ash_warn("ledger", "%s cannot be believed (%s): set aside as %s.damaged, a new one is begun",
             l->path, why, l->path);
}

static bool damaged(int rc)
{
    rc &= 0xff;
    return rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB || rc == SQLITE_FORMAT;
}

/* One integer that a statement gives, -1 if it does not. */
static sqlite3_int64 one(ash_ledger *l, const char *sql, int *rc)
{
    sqlite3_stmt *s = NULL;
    sqlite3_int64 v = -1;
    *rc = l->sql.prepare_v2(l->db, sql, -1, &s, NULL);
    if (!*rc && (*rc = l->sql.step(s)) == SQLITE_ROW) {
        v = l->sql.column_int64(s, 0);
        *rc = 0;
    }
    l->sql.finalize(s);
    return v;
}

/* Opens the file as it is and looks whether it is ours. */
static int try_open(ash_ledger *l, const char **why)
{
    char text[160];
    struct stat st;
    *why = "it belongs to another user";
    if (!stat(l->path, &st) && !ash_fs_is_ours(&st)) return SQLITE_NOTADB;
    int rc = l->sql.open_v2(l->path, &l->db,
                            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                SQLITE_OPEN_PRIVATECACHE,
                            NULL);
    *why = "it is no database, or a damaged one";
    if (rc) return rc;
    l->sql.busy_timeout(l->db, BUSY_MS);
    l->sql.limit(l->db, SQLITE_LIMIT_LENGTH, MAX_VALUE);
    rc = l->sql.exec(l->db,
                     "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0",
                     NULL, NULL, NULL);
    sqlite3_int64 app = rc ? 0 : one(l, "PRAGMA application_id", &rc);
    sqlite3_int64 version = rc ? 0 : one(l, "PRAGMA user_version", &rc);
    sqlite3_int64 tables = rc ? 0 : one(l, "SELECT count(*) FROM sqlite_master", &rc);
    if (rc) return rc;
    bool empty = !app && !version && !tables;
    if (!empty && (app != APPLICATION || version != VERSION)) {
        *why = "it is of another program, or of another version";
        return SQLITE_NOTADB;
    }
    if (empty) {
        snprintf(text, sizeof text,
                 "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA application_id=%d; "
                 "PRAGMA user_version=%d",
                 APPLICATION, VERSION);
        rc = l->sql.exec(l->db, text, NULL, NULL, NULL);
    }
    if (rc) return rc;
    *why = "it holds what Ashley did not put there"; /* a view or a trigger could run for ever */
    sqlite3_int64 foreign =
        one(l, "SELECT count(*) FROM sqlite_master WHERE type NOT IN('table','index')", &rc);
    if (rc || foreign) return rc ? rc : SQLITE_NOTADB;
    rc = l->sql.exec(l->db, SCHEMA, NULL, NULL, NULL);
    if (rc) return rc == SQLITE_ERROR ? SQLITE_NOTADB : rc;
    if (stat(l->path, &st)) return SQLITE_CANTOPEN;
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    return 0;
}

/* Whether the file that is open is still the one of that name. */
static bool still_there(const ash_ledger *l)
{
    struct stat st;
    return !stat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->ino;
}

static bool ready(ash_ledger *l)
{
    ash_err err = ASH_ERR_INIT;
    const char *why;
    if (l->db && !still_there(l)) shut(l); /* deleted by hand: begun anew */
    if (l->db) return true;
    if (l->no_sql) return false;
    if (!l->have_sql && ash_sqlite_open(&l->sql, &err)) {
        l->no_sql = true;
        tell_once(l, err.msg);
        return false;
    }
    l->have_sql = true;
    if (ash_fs_mkdirs(l->dir, &err)) {
        tell_once(l, err.msg);
        return false;
    }
    int rc = try_open(l, &why);
    if (damaged(rc)) {
        set_aside(l, why);
        rc = try_open(l, &why);
    }
    if (!rc) return true;
    tell_once(l, l->db ? l->sql.errmsg(l->db) : "out of memory");
    shut(l);
    return false;
}

int ash_ledger_open(const char *dir, ash_ledger **out, ash_err *err)
{
    ash_ledger *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) return ash_err_nomem(err, "the ledger");
    l->dir = strdup(dir);
    l->path = ash_fs_join(dir, "ledger.db");
    if (!l->dir || !l->path) {
        free(l->dir);
        free(l->path);
        free(l);
        return ash_err_nomem(err, "the ledger");
    }
    pthread_mutex_init(&l->mutex, NULL);
    *out = l;
    return 0;
}

void ash_ledger_close(ash_ledger *l)
{
    if (!l) return;
    shut(l);
    pthread_mutex_destroy(&l->mutex);
    free(l->dir);
    free(l->path);
    free(l);
}

static sqlite3_stmt *prepare(ash_ledger *l, const char *sql, int *rc)
{
    sqlite3_stmt *s = NULL;
    *rc = l->sql.prepare_v2(l->db, sql, -1, &s, NULL);
    if (*rc == SQLITE_ERROR) *rc = SQLITE_CORRUPT; /* the tables are not ours */
    return s;
}

static void bind_key(ash_ledger *l, sqlite3_stmt *s, const ash_ledger_key *k)
{
    l->sql.bind_text(s, 1, k->model, -1, SQLITE_STATIC);
    l->sql.bind_text(s, 2, k->revision, -1, SQLITE_STATIC);
    l->sql.bind_text(s, 3, k->variant, -1, SQLITE_STATIC);
    l->sql.bind_int64(s, 4, k->ctx);
}

/* Ends a statement. A damaged file is set aside; a busy one is left for the next time. */
static void done(ash_ledger *l, sqlite3_stmt *s, int rc)
{
    l->sql.finalize(s);
    if (damaged(rc))
        set_aside(l, "it is damaged");
    else if (rc != SQLITE_DONE && rc != SQLITE_ROW && (rc & 0xff) != SQLITE_BUSY)
        tell_once(l, l->sql.errmsg(l->db));
}

static bool bytes_at(ash_ledger *l, sqlite3_stmt *s, int i, uint64_t *out)
{
    sqlite3_int64 v = l->sql.column_int64(s, i);
    *out = v > 0 ? (uint64_t)v : 0;
    return v >= 0 && *out <= MOST_BYTES;
}

static bool ms_at(ash_ledger *l, sqlite3_stmt *s, int i, double *out)
{
    *out = l->sql.column_double(s, i);
    return *out >= 0.0 && *out <= MOST_MS;
}

static bool read_row(ash_ledger *l, sqlite3_stmt *s, ash_ledger_row *r)
{
    uint64_t *bytes[] = {&r->weight_bytes, &r->kv_bytes,   &r->scratch_bytes,
                         &r->draft_bytes,  &r->file_bytes, &r->grown_bytes};
    bool ok = true;
    for (int i = 0; i < 6; i++) ok &= bytes_at(l, s, i, bytes[i]);
    ok &= ms_at(l, s, 6, &r->load_ms);
    for (int i = 0; i < ASH_LEDGER_STAGES; i++) ok &= ms_at(l, s, 7 + i, &r->stage_ms[i]);
    return bytes_at(l, s, 13, &r->loads) && ok;
}

bool ash_ledger_find(ash_ledger *l, const ash_ledger_key *key, ash_ledger_row *out)
{
    bool found = false;
    int rc;
    *out = (ash_ledger_row){0};
    pthread_mutex_lock(&l->mutex);
    if (ready(l)) {
        sqlite3_stmt *s = prepare(l, FIND, &rc);
        if (s) {
            bind_key(l, s, key);
            rc = l->sql.step(s);
            found = rc == SQLITE_ROW && read_row(l, s, out);
        }
        done(l, s, rc);
    }
    pthread_mutex_unlock(&l->mutex);
    if (!found) *out = (ash_ledger_row){0};
    return found;
}

static int put_row(ash_ledger *l, const ash_ledger_key *key, const ash_ledger_row *r)
{
    const uint64_t bytes[] = {r->weight_bytes, r->kv_bytes,   r->scratch_bytes,
                              r->draft_bytes,  r->file_bytes, r->grown_bytes};
    int rc;
    sqlite3_stmt *s = prepare(l, PUT, &rc);
    if (s) {
        bind_key(l, s, key);
        for (int i = 0; i < 6; i++)
            l->sql.bind_int64(s, 5 + i,
                              (sqlite3_int64)(bytes[i] < MOST_BYTES ? bytes[i] : MOST_BYTES));
        l->sql.bind_double(s, 11, r->load_ms);
        for (int i = 0; i < ASH_LEDGER_STAGES; i++) l->sql.bind_double(s, 12 + i, r->stage_ms[i]);
        rc = l->sql.step(s);
    }
    done(l, s, rc);
    return rc;
}

/* The longest unwritten rows go. */
static void prune(ash_ledger *l, const char *sql)
{
    int rc;
    sqlite3_stmt *s = prepare(l, sql, &rc);
    if (s) {
        l->sql.bind_int64(s, 1, ASH_LEDGER_ROWS);
        rc = l->sql.step(s);
    }
    done(l, s, rc);
}

bool ash_ledger_put(ash_ledger *l, const ash_ledger_key *key, const ash_ledger_row *row)
{
    pthread_mutex_lock(&l->mutex);
    int rc = ready(l) ? put_row(l, key, row) : SQLITE_ERROR;
    if (damaged(rc) && ready(l)) rc = put_row(l, key, row); /* into the new one */
    if (rc == SQLITE_DONE) prune(l, PRUNE);
    pthread_mutex_unlock(&l->mutex);
    return rc == SQLITE_DONE;
}

size_t ash_ledger_found_of(ash_ledger *l, const char *model, const char *revision,
                           ash_ledger_found out[ASH_LEDGER_ROOMS])
{
    size_t n = 0;
    int rc;
    pthread_mutex_lock(&l->mutex);
    if (ready(l)) {
        sqlite3_stmt *s = prepare(l, FIND_FOUND, &rc);
        if (s) {
            l->sql.bind_text(s, 1, model, -1, SQLITE_STATIC);
            l->sql.bind_text(s, 2, revision, -1, SQLITE_STATIC);
            l->sql.bind_int64(s, 3, ASH_LEDGER_ROOMS);
            while (n < ASH_LEDGER_ROOMS && (rc = l->sql.step(s)) == SQLITE_ROW)
                out[n++] = (ash_ledger_found){l->sql.column_double(s, 0), l->sql.column_double(s, 1)};
        }
        done(l, s, rc);
    }
    pthread_mutex_unlock(&l->mutex);
    return n;
}

static int put_found(ash_ledger *l, const char *model, const char *revision, const ash_ledger_found *r)
{
    int rc, part = (int)(r->room * ASH_LEDGER_ROOMS);
    sqlite3_stmt *s = prepare(l, PUT_FOUND, &rc);
    if (s) {
        l->sql.bind_text(s, 1, model, -1, SQLITE_STATIC);
        l->sql.bind_text(s, 2, revision, -1, SQLITE_STATIC);
        l->sql.bind_int64(s, 3, part < ASH_LEDGER_ROOMS ? part : ASH_LEDGER_ROOMS - 1);
        l->sql.bind_double(s, 4, r->room);
        l->sql.bind_double(s, 5, r->found);
        rc = l->sql.step(s);
    }
    done(l, s, rc);
    return rc;
}

bool ash_ledger_put_found(ash_ledger *l, const char *model, const char *revision,
                          const ash_ledger_found *row)
{
    if (!(row->room >= 0.0 && row->room <= 1.0 && row->found >= 0.0 && row->found <= 1.0)) return false;
    pthread_mutex_lock(&l->mutex);
    int rc = ready(l) ? put_found(l, model, revision, row) : SQLITE_ERROR;
    if (damaged(rc) && ready(l)) rc = put_found(l, model, revision, row); /* into the new one */
    if (rc == SQLITE_DONE) prune(l, PRUNE_FOUND);
    pthread_mutex_unlock(&l->mutex);
    return rc == SQLITE_DONE;
}

bool ash_ledger_rate(ash_ledger *l, const char *what, double *out)
{
    bool found = false;
    int rc;
    *out = 0.0;
    pthread_mutex_lock(&l->mutex);
    if (ready(l)) {
        sqlite3_stmt *s = prepare(l, FIND_RATE, &rc);
        if (s) {
            l->sql.bind_text(s, 1, what, -1, SQLITE_STATIC);
            rc = l->sql.step(s);
            double v = rc == SQLITE_ROW ? l->sql.column_double(s, 0) : 0.0;
            found = v >= LEAST_RATE && v <= MOST_RATE;
            if (found) *out = v;
        }
        done(l, s, rc);
    }
    pthread_mutex_unlock(&l->mutex);
    return found;
}

static int put_rate(ash_ledger *l, const char *what, double rate)
{
    int rc;
    sqlite3_stmt *s = prepare(l, PUT_RATE, &rc);
    if (s) {
        l->sql.bind_text(s, 1, what, -1, SQLITE_STATIC);
        l->sql.bind_double(s, 2, rate);
        rc = l->sql.step(s);
    }
    done(l, s, rc);
    return rc;
}

bool ash_ledger_put_rate(ash_ledger *l, const char *what, double rate)
{
    if (!(rate >= LEAST_RATE && rate <= MOST_RATE)) return false;
    pthread_mutex_lock(&l->mutex);
    int rc = ready(l) ? put_rate(l, what, rate) : SQLITE_ERROR;
    if (damaged(rc) && ready(l)) rc = put_rate(l, what, rate); /* into the new one */
    pthread_mutex_unlock(&l->mutex);
    return rc == SQLITE_DONE;
}
