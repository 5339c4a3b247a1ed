/* store_internal.h — inside the tuning store: databases, rows, readers.
 *
 * One row of `at_tables` describes one SQL table; reading, inserting, hashing,
 * JSON, merge and verify all run over that description. The SQL itself, with what
 * each column means, is in store_schema.c.
 */
#ifndef AT_STORE_INTERNAL_H
#define AT_STORE_INTERNAL_H
#include "autotune/store.h"
#include <sqlite3.h>
#include <sys/types.h>

/* ---- hashing (store_hash.c) ---- */

enum { AT_UID = 32 }; /* characters of a uid: 128 bits of BLAKE2b in hexadecimal */

typedef struct at_hasher {
  uint64_t h[8], bytes;
  unsigned char block[128];
  size_t fill;
} at_hasher;
void at_hash_start(at_hasher *h);
void at_hash_bytes(at_hasher *h, const void *p, size_t n);
/* Fields carry their length or width, so that no two rows hash the same bytes. */
void at_hash_text(at_hasher *h, const char *s);
void at_hash_int(at_hasher *h, int64_t v);
void at_hash_real(at_hasher *h, double v);
void at_hash_end(at_hasher *h, char uid[AT_UID + 1]);

/* ---- tables and rows (store_rows.c) ---- */

typedef enum at_table_id {
  AT_T_ENVIRONMENT, AT_T_WORKLOAD, AT_T_TASK, AT_T_CONFIG, AT_T_RUN, AT_T_TRIAL, AT_T_PIN, AT_TABLES
} at_table_id; /* in order of reference */

typedef enum at_kind {
  AT_TEXT,
  AT_INT,
  AT_REAL, /* NaN in C is NULL in SQL and null in JSON */
  AT_LIST, /* text: a JSON array of numbers in canonical form */
  AT_REF   /* here the uid of a row of another table; in SQL its id */
} at_kind;

typedef struct at_col {
  const char *name;
  at_kind kind;
  at_table_id refers;
} at_col;

enum { AT_MAX_COLS = 18, AT_MAX_TEXTS = 6, AT_MAX_BLOB = 64 << 20 };

typedef struct at_table {
  const char *name;
  int ncols, nkey; /* uid hashes the first nkey columns; 0: it is random */
  bool changes;    /* has `stamp` and `sum`: of two versions the later stamp, then the
                      greater sum stays; sum hashes uid, stamp and all columns */
  at_col cols[AT_MAX_COLS];
} at_table;
extern const at_table at_tables[AT_TABLES];

typedef union at_val {
  const char *s; /* AT_TEXT, AT_LIST, AT_REF; never null */
  int64_t i;
  double d;
} at_val;

typedef struct at_row {
  const at_table *table;
  int64_t id;    /* local to a file */
  int64_t stamp; /* microseconds since 1970 */
  char uid[AT_UID + 1], sum[AT_UID + 1];
  bool sound; /* hashes agree */
  at_val v[AT_MAX_COLS];
  const char *text[AT_MAX_TEXTS]; /* see at_reader */
} at_row;

/* Columns that code names; the order of at_tables. */
enum { AT_ENV_TARGET, AT_ENV_CPU, AT_ENV_ISA, AT_ENV_CACHES, AT_ENV_KERNEL, AT_ENV_LIBRARY, AT_ENV_PROBES };
enum { AT_WORKLOAD_KERNEL, AT_WORKLOAD_CLASS, AT_WORKLOAD_NAME };
enum { AT_TASK_WORKLOAD, AT_TASK_TARGET, AT_TASK_POLICY };
enum { AT_CONFIG_SCHEDULE };
enum { AT_RUN_ENV, AT_RUN_SEED, AT_RUN_BUDGET_S, AT_RUN_BUDGET_TRIALS, AT_RUN_STARTED, AT_RUN_ENDED, AT_RUN_HOST,
       AT_RUN_LABEL };
enum { AT_TRIAL_RUN, AT_TRIAL_SEQ, AT_TRIAL_TASK, AT_TRIAL_CONFIG, AT_TRIAL_CODEGEN, AT_TRIAL_STATUS, AT_TRIAL_STAGE,
       AT_TRIAL_ORIGIN, AT_TRIAL_REASON, AT_TRIAL_N, AT_TRIAL_MIN, AT_TRIAL_MEDIAN, AT_TRIAL_MAD, AT_TRIAL_COST,
       AT_TRIAL_PREDICTED, AT_TRIAL_COMPILE, AT_TRIAL_TIME, AT_TRIAL_SAMPLES };
enum { AT_X_KERNEL, AT_X_CLASS, AT_X_NAME, AT_X_TARGET, AT_X_POLICY, AT_X_SCHEDULE }; /* row->text of a trial */
enum { AT_PIN_TASK, AT_PIN_CONFIG, AT_PIN_ACTIVE, AT_PIN_NOTE };

/* Starts a row: zero numbers, empty texts. */
void at_row_start(at_row *r, at_table_id table);
/* The hash of the columns that identify a row. */
void at_row_uid(const at_row *r, char uid[AT_UID + 1]);
/* Sets uid (when the table has a key) and sum from the columns. */
void at_row_seal(at_row *r);
/* Sets `sound`: uid and sum agree with the columns. */
void at_row_check(at_row *r);

/* ---- one database (store_sql.c) ---- */

typedef enum at_st {
  AT_S_INSERT, /* + table */
  AT_S_BEST = AT_S_INSERT + AT_TABLES,
  AT_S_BEST_STALE, AT_S_BARRED, AT_S_PIN, AT_S_PINNED_TRIAL, AT_S_HAS, /* trial by uid */
  AT_S_BEGIN_READ, AT_S_BEGIN, AT_S_COMMIT, AT_S_ROLLBACK, AT_S_OBJECT_PUT, AT_S_OBJECT_GET, AT_S_VERSION,
  AT_S_WORKLOAD, AT_S_TASK, AT_S_PIN_STAMP, AT_S_COUNT
} at_st;

typedef struct at_db {
  sqlite3 *h; /* null: not open */
  const char *path;
  bool writable, memory, shared;
  long patience_ms, write_patience_ms; /* how long to wait for another process's lock */
  int64_t busy_since;
  sqlite3_stmt *st[AT_S_COUNT];
} at_db;

/* Opens and checks a file: ours, a known version, migrated when writable, with the
 * journal mode that is safe here. SQLITE_OK, or a code with the reason in `why`
 * (bytes: at least 256); the handle is then closed. SQLITE_EMPTY: nothing in it. */
int at_db_open(at_db *db, bool readonly, char *why, size_t n);
int at_db_open_memory(at_db *db);
void at_db_close(at_db *db);
/* A prepared statement, reset; null with *rc set when it cannot be prepared. */
sqlite3_stmt *at_db_st(at_db *db, at_st which, int *rc);
/* Runs a statement without rows. */
int at_db_exec(at_db *db, at_st which);
/* One write transaction around fn, which returns an SQLite code. Waits for other
 * writers; all or nothing. */
int at_db_write(at_db *db, int (*fn)(at_db *db, void *arg), void *arg);
/* SQLITE_DONE becomes SQLITE_OK; resets. */
int at_st_run(sqlite3_stmt *st);
void at_st_text(sqlite3_stmt *st, int i, const char *s);
/* Inserts, or updates a changing row that is older. *changed counts what was new. */
int at_db_insert(at_db *db, const at_row *row, int64_t *changed);
/* Columns "t.uid, ..." and the joins that at_row_read expects, from its column `first` on. */
const char *at_select_trial(void); /* "SELECT ... FROM trial t JOIN ..." */
void at_row_read(at_row *r, at_table_id table, sqlite3_stmt *st, int first);
int at_row_columns(at_table_id table); /* how many at_row_read takes */
/* Value of a one-row integer query; `none` on any error. */
int64_t at_db_int(at_db *db, const char *sql, int64_t none);
const char *at_code_text(int rc); /* a short reason for people */

/* ---- schema (store_schema.c) ---- */

enum { AT_APPLICATION_ID = 0x546e4442 /* "TnDB" */, AT_SCHEMA_VERSION = 1 };
/* steps[i] takes a database from version i to i + 1. */
int at_migrate(sqlite3 *h, const char *const *steps, int n);
extern const char *const at_schema_steps[AT_SCHEMA_VERSION];
bool at_sqlite_wal_is_sound(int version_number); /* of sqlite3_libversion_number() */
bool at_is_local_filesystem(const char *path);
/* SQL list of the statuses that bar a config: not merely slow or unlucky. */
#define AT_BAD "('wrong','crash','hang')"

/* ---- readers (store_reader.c) ---- */

/* Walks over rows in pages: no lock is held between two calls of next, so that the
 * caller may write, wait or throw. */
typedef struct at_reader at_reader;
typedef enum at_order { AT_BY_UID, AT_BY_ID } at_order; /* BY_ID also walks damaged files */
/* `where` is SQL after WHERE over the alias t with parameters ?1.. bound to `args`
 * (null: all rows). With `texts`, trials carry kernel, class, name, target, policy,
 * schedule in row->text. Null when memory is out. Free it. */
at_reader *at_reader_new(at_db *db, at_table_id table, at_order order, const char *where,
                         const char *const *args, int nargs, bool texts);
/* The next row, sound or not, living until the call after; null at the end. */
const at_row *at_reader_next(at_reader *r);
/* The rest of the current page, or the next one: *n rows, living until the call after;
 * null at the end. */
const at_row *at_reader_page(at_reader *r, int *n);
int at_reader_error(const at_reader *r); /* SQLITE_OK, or what cut it short */
int64_t at_reader_skipped(const at_reader *r); /* rows that could not be read at all */
void at_reader_free(void *r);

/* ---- the store (store.c) ---- */

enum { AT_MAX_SHARED = 8, AT_LAYERS = AT_MAX_SHARED + 2 };

struct at_run {
  at_row env, row;
  int64_t seq;
};

/* Answers of at_store_best, good as long as no database of the stack has changed. */
enum { AT_MEMOS = 256 };
typedef struct at_memo {
  char task[AT_UID + 1], codegen[64];
  bool known, found; /* known: the slot is in use */
  at_winner w;
} at_memo;

struct at_store {
  tn_ctx *ctx;
  pid_t owner;
  unsigned flags;
  /* In order of trust: the private file, rows that could not be written to it, shared files. */
  at_db file, memory, shared[AT_MAX_SHARED];
  int nshared;
  char trouble[256]; /* why rows go to memory; "" when they do not */
  unsigned warned;   /* bit per primary result code */
  bool warned_damaged;
  int64_t retry_us;  /* not before this moment is the file tried again */
  int64_t waiting;   /* rows in memory that belong in the file */
  at_run *anonymous;
  at_memo *memos;    /* by the task's first digits; null until asked */
  uint64_t memo_version; /* of all layers, as the memos know them */
};

int64_t at_now_us(void);
bool at_store_mine(const at_store *s); /* not null, and not in a forked child */
/* Open databases in order of trust; returns how many. */
int at_store_layers(at_store *s, at_db *out[AT_LAYERS]);
/* Something went wrong on `db`: warn once, or throw if strict. */
void at_store_complain(at_store *s, at_db *db, int rc, const char *what);
/* Rows that do not match their hash: warn once, never throw. */
void at_store_warn_damaged(at_store *s, at_db *db);
/* Write transaction on the file, else in memory. */
void at_store_write(at_store *s, int64_t rows, int (*fn)(at_db *db, void *arg), void *arg);
/* The database that whole-store verbs work on: the file if open, else memory; null if neither. */
at_db *at_store_main(at_store *s);
void at_task_uid(const at_key *key, char workload[AT_UID + 1], char task[AT_UID + 1]);
void at_config_uid(const char *schedule, char config[AT_UID + 1]);
/* Inserts what is missing of workload, task and config; fills in the uids. */
int at_insert_task(at_db *db, const at_key *key, const char *klass, const char *name, const char *schedule,
                   char task[AT_UID + 1], char config[AT_UID + 1]);
static inline const char *at_or_empty(const char *s) { return s ? s : ""; }

/* ---- whole stores (store_merge.c, store_json.c, store_gc.c) ---- */

/* Copies all sound rows. SQLITE_OK, or the code of the failing write. */
int at_copy_rows(at_db *from, at_db *to, at_tally *tally);

void at_json_text(FILE *out, const char *s);
void at_json_real(FILE *out, double v); /* NaN: null */
void at_json_row(FILE *out, const at_row *r); /* one line */
/* Parses one line; the row's texts lie in `line`, which is changed, and *list (a
 * sqlite3_malloc'ed text or null, the caller's). Returns null, or what is wrong. */
const char *at_json_parse_row(char *line, at_row *r, char **list);
/* Canonical form of a list of numbers, from text or doubles; sqlite3_free it; null
 * when memory is out or, from text, when it is no list. */
char *at_list_text(const double *v, int n);
char *at_list_canonical(const char *s);
/* Values of a canonical list, at most max; returns how many. */
int at_list_read(const char *s, double *out, int max);
#endif
