/* store.h — the tuning store: every trial in SQLite, winners derived by query.
 *
 *      environment <── run <──┐
 *                             trial ──> config   (schedule text)
 *      workload <── task <────┘
 *      (kernel text) (workload + target + policy) <── pin ──> config
 *
 * A row is known by a hash of what it says (`uid`), so stores merge in any order
 * and any number of times into the same set. A winner is never stored: it is the
 * cheapest config of a task that nothing speaks against (see at_store_best).
 *
 * Nothing in here may spoil a compile. A store that cannot be read is a miss, one
 * that cannot be written collects its rows in memory and says so once through
 * ir_log; with AT_STORE_STRICT (the `db` verbs) such a thing is thrown instead.
 * Beyond that only a lack of memory throws (TN_ERESOURCE), and a broken contract
 * (TN_EINTERNAL). A null store is legal everywhere: nothing found, nothing kept.
 *
 * A store is used by one thread at a time, that of its context, and only by the
 * process that opened it: in a forked child every call is a miss. What it returns
 * goes to that context's arena, so while candidates live in child contexts the store
 * belongs in a context of its own.
 * All times are nanoseconds, except moments: microseconds since 1970.
 */
#ifndef AT_STORE_H
#define AT_STORE_H
#include "ir/ctx.h"
#include <stdio.h>

typedef struct at_store at_store;
typedef struct at_run at_run;

enum {
  AT_STORE_READONLY = 1, /* never write to the file: new rows live in memory */
  AT_STORE_STRICT = 2,   /* throw instead of warning and falling back */
  AT_STORE_NOSHARED = 4  /* ignore TENON_DB_SHARED */
};

/* Opens the store at `path`; null: $TENON_DB, else $XDG_CACHE_HOME/tenon/tenon.db,
 * else ~/.cache/tenon/tenon.db. The path "none" gives a null store, ":memory:" one
 * that is forgotten. The file and its folder are made when missing. Below it lie
 * the read-only stores named in $TENON_DB_SHARED (a ':' between two). The context
 * closes it at the latest. */
at_store *at_store_open(tn_ctx *ctx, const char *path, unsigned flags);
/* Puts a read-only store below those already there. False and a warning if it cannot be read. */
bool at_store_add_shared(at_store *store, const char *path);
/* Writes what waits in memory, if it can be, and closes. */
void at_store_close(at_store *store);
/* The file that would be opened, in the arena; null when the answer is "none" or
 * there is no home. */
const char *at_store_default_path(tn_ctx *ctx);
/* "" when rows go to the file; else why they are only kept in memory. */
const char *at_store_trouble(const at_store *store);

/* ---- what is recorded ---- */

typedef enum at_status {
  AT_OK = 0,
  AT_WRONG,         /* result differs from the reference, or a guard zone was hit */
  AT_CRASH,         /* killed by a signal */
  AT_HANG,          /* ran past its limit */
  AT_OOM,
  AT_REFUSED,       /* a schedule step is not legal here */
  AT_COMPILE_ERROR,
  AT_NOISY,         /* timed, but the samples cannot be trusted */
  AT_STATUS_COUNT
} at_status;
const char *at_status_name(at_status s);                 /* "ok", "compile_error", ... */
bool at_status_parse(const char *s, at_status *out);

/* Where results are looked for. All four are canonical text; null counts as "". */
typedef struct at_key {
  const char *kernel;  /* canonical text of the unscheduled kernel */
  const char *target;  /* fingerprint: ISA, caches; driver for GPUs */
  const char *policy;  /* how it is timed: "warm", "cold", threads, ... */
  const char *codegen; /* version of the code generator */
} at_key;

/* The machine of a run; text, null counts as "". */
typedef struct at_env {
  const char *target, *cpu, *isa, *caches, *kernel; /* kernel: of the operating system */
  const char *library;                              /* versions of Tenon and LLVM */
  const char *probes;                               /* measured figures: "fma_gflops=61.2 ..." */
} at_env;
/* Fills cpu, isa, caches and kernel from the running machine; leaves the rest. */
void at_env_read(tn_ctx *ctx, at_env *env);

typedef struct at_run_info {
  at_env env;
  uint64_t seed;
  double budget_s;        /* 0: none */
  int64_t budget_trials;  /* 0: none */
  const char *label;      /* what was asked for; may be null */
} at_run_info;
/* A tuning run; lives as long as the store. Its row goes in with its first batch, or at its end. */
at_run *at_run_begin(at_store *store, const at_run_info *info);
const char *at_run_uid(const at_run *run);

typedef struct at_trial {
  at_key key;
  const char *klass;    /* problem class: "gemm", "conv2d", ...; may be null */
  const char *name;     /* for people: "gemm:f32:128x768x768"; may be null */
  const char *schedule; /* canonical text of the config; "" is the unscheduled kernel */
  at_status status;
  int stage;            /* how far it came in the tuner's race; only reported */
  const char *origin;   /* where it comes from: "default", "model", "mutate", ...; may be null */
  const char *reason;   /* why it failed; may be null */
  const double *samples; /* n times of one call, in the order taken; AT_OK needs n >= 1 */
  int n;
  double cost_ns;       /* what winners are ranked by; 0: at_cost() of the samples */
  double predicted_ns;  /* by the model; 0: none */
  double compile_ms;    /* 0: none */
  int64_t time_us;      /* when; 0: now */
} at_trial;
/* Records a batch in one transaction: all of it or nothing. `run` may be null: then
 * an anonymous run of this process stands in. Texts are not kept. Rows that cannot
 * be written to the file stay in memory and are written with a later batch. */
void at_store_add_trials(at_store *store, at_run *run, const at_trial *batch, int n);
/* The run is over: notes the moment, in one transaction with its last batch (n may be 0), as at_store_add_trials. */
void at_run_end(at_store *store, at_run *run, const at_trial *last, int n);
/* Median, made dearer where few samples stand behind it (1: 10 %, < 5: 5 %, < 15: 2 %),
 * so that a lucky probe does not unseat a measured winner. */
double at_cost(const double *samples, int n);
double at_dearer(int n); /* that factor for n samples */

/* ---- what is asked ---- */

typedef struct at_winner {
  const char *schedule; /* in the arena */
  bool pinned;          /* chosen by a person; the figures below may be missing */
  bool stale;           /* timed by another code generator: check and time it again */
  bool shared;          /* from a shared store */
  double cost_ns, min_ns, median_ns, mad_ns, predicted_ns; /* NaN: unknown */
  int n;                /* samples; 0: never timed */
  int64_t time_us;
  char codegen[64];
  char uid[33];         /* of the trial; "" when never timed */
} at_winner;
/* The winner of a task: a pin; else the cheapest config with this code generator;
 * else with another one (stale). A config counts by its best-founded ok trial (most
 * samples, then latest) and not at all once the same kernel and target saw it
 * wrong, crash or hang with that generator. Private rows go before shared ones.
 * False: nothing known. Repeated calls take microseconds. */
bool at_store_best(at_store *store, const at_key *key, at_winner *out);

/* What was tried for a key with its code generator, shared stores included; one
 * entry per config (its worst status, its best-founded time), sorted by schedule
 * text with strcmp. In the arena; null and 0 when nothing was. */
typedef struct at_seen {
  const char *schedule;
  at_status status;
  int trials;
  double cost_ns, median_ns; /* NaN unless it was ok once */
} at_seen;
at_seen *at_store_seen(at_store *store, const at_key *key, int *n);
const at_seen *at_seen_find(const at_seen *seen, int n, const char *schedule);

/* One trial as it lies in the store; texts live for the call. */
typedef struct at_record {
  const char *uid, *run, *workload, *config; /* uids; for run the random one */
  const char *kernel, *klass, *name, *target, *policy, *codegen;
  const char *schedule, *origin, *reason;
  at_status status;
  int stage, n;
  const double *samples;
  double min_ns, median_ns, mad_ns, cost_ns, predicted_ns, compile_ms; /* NaN: unknown */
  int64_t seq, time_us;
  bool shared;
} at_record;
/* Null fields match everything. */
typedef struct at_filter {
  const char *kernel, *klass, *name, *target, *policy, *codegen, *run;
  bool ok_only;
} at_filter;
/* Calls fn for each trial, by its uid, until it returns false. No lock is held
 * meanwhile: fn may use the store and may throw. Damaged rows are skipped with a
 * warning. Returns the number of calls. */
int64_t at_store_each_trial(at_store *store, const at_filter *f,
                            bool (*fn)(void *user, const at_record *r), void *user);
/* The same for winners of the current code generator `codegen` (null: any): one call
 * per task, as at_store_best sees it; the filter's `kernel` must be null. */
int64_t at_store_each_winner(at_store *store, const at_filter *f,
                             bool (*fn)(void *user, const at_key *key, const char *klass,
                                        const char *name, const at_winner *w), void *user);

/* ---- pins ---- */

/* From now on `schedule` is the winner of this kernel, target and policy. */
void at_store_pin(at_store *store, const at_key *key, const char *klass, const char *name,
                  const char *schedule, const char *note);
/* False if there was no pin. Also hides a pin of a shared store. */
bool at_store_unpin(at_store *store, const at_key *key);

/* ---- emitted kernels, kept to save compiling; a cache that gc may empty ---- */

/* `key` is any text that fixes the bytes. */
void at_store_object_put(at_store *store, const char *key, const void *bytes, size_t n);
/* Arena copy, or null. */
const void *at_store_object_get(at_store *store, const char *key, size_t *n);

/* ---- whole stores ---- */

typedef struct at_tally {
  int64_t read;    /* rows looked at */
  int64_t added;   /* new or updated here */
  int64_t damaged; /* skipped: they do not match their hash, or refer to nothing */
} at_tally;
/* One JSON object per line, tables in order of reference, rows by uid: equal stores
 * give equal bytes. Objects of the kernel cache are left out. */
at_tally at_store_export(at_store *store, FILE *out);
/* Reads what export wrote; `name` is for messages. Throws TN_EINPUT if it is not an
 * export, or one of a newer Tenon. A damaged line is counted, named and skipped. */
at_tally at_store_import(at_store *store, FILE *in, const char *name);
/* Adds all rows of the store file at `path`, which stays as it is. Commutes, and
 * twice is once. From a damaged file it takes what can be read. Throws TN_EINPUT
 * or TN_ERESOURCE when it cannot be opened. */
at_tally at_store_merge(at_store *store, const char *path);
/* Checks the file's structure, references and every row's hash; says what is wrong,
 * a line each, through `say` (may be null). `repair` deletes damaged rows when the
 * file itself is sound. */
at_tally at_store_verify(at_store *store, bool repair, void (*say)(void *user, const char *line),
                         void *user);

typedef struct at_gc {
  int64_t older_than_s; /* delete trials older than this; 0: of any age stay */
  int keep;             /* of each task and generator keep so many ok trials (the cheapest)
                           and so many failures (the latest); 0: all */
  int64_t object_bytes; /* keep so many bytes of cached kernels, the latest; < 0: all */
  bool dry_run;
} at_gc;
typedef struct at_gc_result {
  int64_t trials, configs, workloads, runs, objects; /* deleted, or would be */
  int64_t trials_left;
} at_gc_result;
/* Winners, pinned configs and wrong results always stay, as do crashes and hangs of a
 * config that keeps a time. */
at_gc_result at_store_gc(at_store *store, const at_gc *how);

/* ---- command line ---- */

/* `tenon db`: argv[0] is the verb (ls, show, export, import, merge, verify, gc, pin,
 * unpin, path), the rest its arguments; `--db FILE` and `--json` are understood
 * anywhere. Answers go to `out`, as one JSON object or as text. Returns an exit
 * code; when it is not 0 the message is in ir_error(ctx). */
int at_db_main(tn_ctx *ctx, int argc, char **argv, FILE *out, bool json);
const char *at_db_usage(void);
#endif
