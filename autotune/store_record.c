/* store_record.c — what goes in: runs, trials, pins, cached kernels.
 *
 * A batch is one transaction and may be played twice (on the file, then in memory),
 * so everything that makes a row what it is, its number and its time, is fixed
 * before the transaction starts. Nothing inside one throws.
 */
#include "autotune/stats.h"
#include "autotune/store_internal.h"
#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const char *const status_names[AT_STATUS_COUNT] = {"ok",  "wrong",   "crash",         "hang",
                                                          "oom", "refused", "compile_error", "noisy"};

const char *at_status_name(at_status s) { return s >= 0 && s < AT_STATUS_COUNT ? status_names[s] : "?"; }

bool at_status_parse(const char *s, at_status *out) {
  for (int i = 0; i < AT_STATUS_COUNT; i++)
    if (!strcmp(s, status_names[i])) {
      *out = (at_status)i;
      return true;
    }
  return false;
}

double at_dearer(int n) { return n < 2 ? 1.10 : n < 5 ? 1.05 : n < 15 ? 1.02 : 1; }
double at_cost(const double *samples, int n) { return at_median(samples, n) * at_dearer(n); }

/* Free text (a compiler's complaint, a host name) as one UTF-8 string that fits. */
static const char *clean(char *out, size_t size, const char *s) {
  size_t n = 0;
  for (s = at_or_empty(s); *s && n + 5 < size;) {
    unsigned char c = (unsigned char)*s;
    int more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : -1;
    bool good = more >= 0 && (c >= 0x20 || c == '\n' || c == '\t') && c != 0x7f;
    for (int i = 1; i <= more && good; i++) good = ((unsigned char)s[i] & 0xc0) == 0x80;
    if (good && more == 2) good = !(c == 0xe0 && (unsigned char)s[1] < 0xa0) && !(c == 0xed && (unsigned char)s[1] > 0x9f);
    if (good && more == 3) good = !(c == 0xf0 && (unsigned char)s[1] < 0x90) && !(c == 0xf4 && (unsigned char)s[1] > 0x8f);
    if (!good) {
      out[n++] = '?';
      s++;
      continue;
    }
    for (int i = 0; i <= more; i++) out[n++] = *s++;
  }
  out[n] = 0;
  return out;
}

/* ---- tasks ---- */

void at_task_uid(const at_key *key, char workload[AT_UID + 1], char task[AT_UID + 1]) {
  at_row w, k;
  at_row_start(&w, AT_T_WORKLOAD);
  w.v[AT_WORKLOAD_KERNEL].s = at_or_empty(key->kernel);
  at_row_uid(&w, workload);
  at_row_start(&k, AT_T_TASK);
  k.v[AT_TASK_WORKLOAD].s = workload;
  k.v[AT_TASK_TARGET].s = at_or_empty(key->target);
  k.v[AT_TASK_POLICY].s = at_or_empty(key->policy);
  at_row_uid(&k, task);
}

void at_config_uid(const char *schedule, char config[AT_UID + 1]) {
  at_row c;
  at_row_start(&c, AT_T_CONFIG);
  c.v[AT_CONFIG_SCHEDULE].s = schedule;
  at_row_uid(&c, config);
}

/* The workload's row, unless it is there and already has these names. */
static int insert_workload(at_db *db, at_row *w, const char *klass, const char *name) {
  char named[2][256];
  int rc;
  sqlite3_stmt *st = at_db_st(db, AT_S_WORKLOAD, &rc);
  if (!st) return rc;
  at_st_text(st, 1, w->uid);
  clean(named[0], sizeof named[0], klass);
  clean(named[1], sizeof named[1], name);
  rc = sqlite3_step(st);
  bool there = rc == SQLITE_ROW, same = there;
  for (int i = 0; i < 2 && there; i++) {
    const char *old = at_or_empty((const char *)sqlite3_column_text(st, i));
    if (!named[i][0]) snprintf(named[i], sizeof named[i], "%s", old);
    same = same && !strcmp(named[i], old);
  }
  int end = sqlite3_reset(st);
  if (end) return end;
  if (same) return SQLITE_OK;
  w->v[AT_WORKLOAD_CLASS].s = named[0];
  w->v[AT_WORKLOAD_NAME].s = named[1];
  w->stamp = at_now_us();
  at_row_seal(w);
  return at_db_insert(db, w, NULL);
}

int at_insert_task(at_db *db, const at_key *key, const char *klass, const char *name, const char *schedule,
                   char task[AT_UID + 1], char config[AT_UID + 1]) {
  at_row w, k, c;
  at_row_start(&w, AT_T_WORKLOAD);
  w.v[AT_WORKLOAD_KERNEL].s = at_or_empty(key->kernel);
  at_row_uid(&w, w.uid);
  int rc = insert_workload(db, &w, klass, name);
  at_row_start(&k, AT_T_TASK);
  k.v[AT_TASK_WORKLOAD].s = w.uid;
  k.v[AT_TASK_TARGET].s = at_or_empty(key->target);
  k.v[AT_TASK_POLICY].s = at_or_empty(key->policy);
  at_row_seal(&k);
  at_row_start(&c, AT_T_CONFIG);
  c.v[AT_CONFIG_SCHEDULE].s = at_or_empty(schedule);
  at_row_seal(&c);
  if (!rc) rc = at_db_insert(db, &k, NULL);
  if (!rc) rc = at_db_insert(db, &c, NULL);
  memcpy(task, k.uid, sizeof k.uid);
  memcpy(config, c.uid, sizeof c.uid);
  return rc;
}

/* ---- runs ---- */

static void random_uid(char uid[AT_UID + 1]) {
  unsigned char b[AT_UID / 2];
  if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b) { /* very early in boot, or an odd sandbox */
    int64_t mix[] = {at_now_us(), getpid(), (int64_t)(intptr_t)&b};
    at_hasher h;
    at_hash_start(&h);
    at_hash_bytes(&h, mix, sizeof mix);
    at_hash_end(&h, uid);
    return;
  }
  for (int i = 0; i < AT_UID / 2; i++) snprintf(uid + 2 * i, 3, "%02x", b[i]);
}

static int insert_run(at_db *db, void *arg) {
  const at_run *run = arg;
  int rc = at_db_insert(db, &run->env, NULL);
  return rc ? rc : at_db_insert(db, &run->row, NULL);
}

at_run *at_run_begin(at_store *s, const at_run_info *info) {
  if (!at_store_mine(s)) return NULL;
  tn_ctx *ctx = s->ctx;
  at_run *run = IR_NEW(ctx, at_run);
  const char *const env[] = {info->env.target, info->env.cpu,     info->env.isa,   info->env.caches,
                             info->env.kernel, info->env.library, info->env.probes};
  char text[2048], host[256] = "";
  at_row_start(&run->env, AT_T_ENVIRONMENT);
  for (int i = 0; i < IR_COUNT(env); i++) run->env.v[i].s = ir_strdup(ctx, clean(text, sizeof text, env[i]));
  at_row_seal(&run->env);
  at_row *r = &run->row;
  at_row_start(r, AT_T_RUN);
  random_uid(r->uid);
  gethostname(host, sizeof host - 1);
  r->stamp = at_now_us();
  r->v[AT_RUN_ENV].s = run->env.uid;
  r->v[AT_RUN_SEED].i = (int64_t)info->seed;
  r->v[AT_RUN_BUDGET_S].d = info->budget_s > 0 ? info->budget_s : NAN;
  r->v[AT_RUN_BUDGET_TRIALS].i = info->budget_trials;
  r->v[AT_RUN_STARTED].i = r->stamp;
  r->v[AT_RUN_HOST].s = ir_strdup(ctx, clean(text, sizeof text, host));
  r->v[AT_RUN_LABEL].s = ir_strdup(ctx, clean(text, sizeof text, info->label));
  at_row_seal(r);
  return run;
}

const char *at_run_uid(const at_run *run) { return run ? run->row.uid : ""; }

/* ---- trials ---- */

typedef struct batch {
  at_run *run;
  const at_trial *trials;
  int n;
  int64_t now;
} batch;

static double or_nan(double v) { return v > 0 && isfinite(v) ? v : NAN; }

static int insert_trial(at_db *db, const batch *b, int i) {
  const at_trial *t = &b->trials[i];
  char task[AT_UID + 1], config[AT_UID + 1], reason[2048], origin[64];
  int rc = at_insert_task(db, &t->key, t->klass, t->name, t->schedule, task, config);
  if (rc) return rc;
  char *samples = at_list_text(t->samples, t->n);
  if (!samples) return SQLITE_NOMEM;
  at_stats stats = at_stats_of(t->samples, t->n);
  at_row r;
  at_row_start(&r, AT_T_TRIAL);
  r.v[AT_TRIAL_RUN].s = b->run->row.uid;
  r.v[AT_TRIAL_SEQ].i = b->run->seq + i;
  r.v[AT_TRIAL_TASK].s = task;
  r.v[AT_TRIAL_CONFIG].s = config;
  r.v[AT_TRIAL_CODEGEN].s = at_or_empty(t->key.codegen);
  r.v[AT_TRIAL_STATUS].s = at_status_name(t->status);
  r.v[AT_TRIAL_STAGE].i = t->stage;
  r.v[AT_TRIAL_ORIGIN].s = clean(origin, sizeof origin, t->origin);
  r.v[AT_TRIAL_REASON].s = clean(reason, sizeof reason, t->reason);
  r.v[AT_TRIAL_N].i = t->n;
  r.v[AT_TRIAL_MIN].d = stats.min;
  r.v[AT_TRIAL_MEDIAN].d = stats.median;
  r.v[AT_TRIAL_MAD].d = stats.mad;
  r.v[AT_TRIAL_COST].d = t->cost_ns > 0 ? t->cost_ns : t->n > 0 ? at_cost(t->samples, t->n) : NAN;
  r.v[AT_TRIAL_PREDICTED].d = or_nan(t->predicted_ns);
  r.v[AT_TRIAL_COMPILE].d = or_nan(t->compile_ms);
  r.v[AT_TRIAL_TIME].i = t->time_us ? t->time_us : b->now;
  r.v[AT_TRIAL_SAMPLES].s = samples;
  at_row_seal(&r);
  rc = at_db_insert(db, &r, NULL);
  sqlite3_free(samples);
  return rc;
}

static int insert_batch(at_db *db, void *arg) {
  const batch *b = arg;
  int rc = insert_run(db, b->run);
  for (int i = 0; i < b->n && !rc; i++) rc = insert_trial(db, b, i);
  return rc;
}

static void check_trial(at_store *s, const at_trial *t) {
  ir_assert(s->ctx, t->status >= 0 && t->status < AT_STATUS_COUNT);
  ir_assert(s->ctx, t->n >= 0 && (t->n > 0 || t->status != AT_OK));
  ir_assert(s->ctx, !isinf(t->cost_ns));
  for (int i = 0; i < t->n; i++) ir_assert(s->ctx, t->samples[i] > 0 && isfinite(t->samples[i]));
}

void at_store_add_trials(at_store *s, at_run *run, const at_trial *trials, int n) {
  if (!at_store_mine(s) || n < 1) return;
  for (int i = 0; i < n; i++) check_trial(s, &trials[i]);
  if (!run) {
    if (!s->anonymous) {
      at_run_info info = {.label = "anonymous"};
      at_env_read(s->ctx, &info.env);
      info.env.target = trials[0].key.target;
      s->anonymous = at_run_begin(s, &info);
    }
    run = s->anonymous;
  }
  batch b = {run, trials, n, at_now_us()};
  at_store_write(s, n, insert_batch, &b);
  run->seq += n;
}

void at_run_end(at_store *s, at_run *run, const at_trial *last, int n) {
  if (!at_store_mine(s) || !run) return;
  for (int i = 0; i < n; i++) check_trial(s, &last[i]);
  int64_t now = at_now_us();
  run->row.stamp = now > run->row.stamp ? now : run->row.stamp + 1; /* the clock may step back */
  run->row.v[AT_RUN_ENDED].i = now;
  at_row_seal(&run->row);
  batch b = {run, last, n, now};
  at_store_write(s, n, insert_batch, &b);
  run->seq += n;
}

/* ---- pins ---- */

typedef struct pinning {
  const at_key *key;
  const char *klass, *name, *schedule, *note;
  int64_t now;
  bool active;
} pinning;

static int insert_pin(at_db *db, void *arg) {
  const pinning *p = arg;
  char task[AT_UID + 1], config[AT_UID + 1], note[1024];
  int rc = at_insert_task(db, p->key, p->klass, p->name, p->schedule, task, config);
  if (rc) return rc;
  at_row r;
  at_row_start(&r, AT_T_PIN);
  r.v[AT_PIN_TASK].s = task;
  r.v[AT_PIN_CONFIG].s = config;
  r.v[AT_PIN_ACTIVE].i = p->active;
  r.v[AT_PIN_NOTE].s = clean(note, sizeof note, p->note);
  at_row_seal(&r);
  sqlite3_stmt *st = at_db_st(db, AT_S_PIN_STAMP, &rc);
  if (!st) return rc;
  at_st_text(st, 1, r.uid);
  r.stamp = p->now; /* always after the pin that it replaces */
  if (sqlite3_step(st) == SQLITE_ROW && sqlite3_column_int64(st, 0) >= r.stamp)
    r.stamp = sqlite3_column_int64(st, 0) + 1;
  rc = sqlite3_reset(st);
  at_row_seal(&r);
  return rc ? rc : at_db_insert(db, &r, NULL);
}

void at_store_pin(at_store *s, const at_key *key, const char *klass, const char *name, const char *schedule,
                  const char *note) {
  if (!at_store_mine(s)) return;
  pinning p = {key, klass, name, schedule, note, at_now_us(), true};
  at_store_write(s, 1, insert_pin, &p);
}

bool at_store_unpin(at_store *s, const at_key *key) {
  if (!at_store_mine(s)) return false;
  at_winner w;
  if (!at_store_best(s, key, &w) || !w.pinned) return false;
  pinning p = {key, NULL, NULL, w.schedule, "", at_now_us(), false};
  at_store_write(s, 1, insert_pin, &p);
  return true;
}

/* ---- cached kernels ---- */

typedef struct object {
  const char *key;
  const void *bytes;
  size_t n;
} object;

static void object_sum(const object *o, char sum[AT_UID + 1]) {
  at_hasher h;
  at_hash_start(&h);
  at_hash_text(&h, o->key);
  at_hash_int(&h, (int64_t)o->n);
  at_hash_bytes(&h, o->bytes, o->n);
  at_hash_end(&h, sum);
}

static int insert_object(at_db *db, void *arg) {
  const object *o = arg;
  char sum[AT_UID + 1];
  object_sum(o, sum);
  int rc;
  sqlite3_stmt *st = at_db_st(db, AT_S_OBJECT_PUT, &rc);
  if (!st) return rc;
  at_st_text(st, 1, o->key);
  at_st_text(st, 2, sum);
  sqlite3_bind_int64(st, 3, at_now_us());
  sqlite3_bind_blob64(st, 4, o->bytes, o->n, SQLITE_STATIC);
  rc = at_st_run(st);
  sqlite3_clear_bindings(st);
  return rc;
}

void at_store_object_put(at_store *s, const char *key, const void *bytes, size_t n) {
  if (!at_store_mine(s) || n > AT_MAX_BLOB / 2) return; /* what is too long is compiled again */
  object o = {key, n ? bytes : "", n};
  at_store_write(s, 0, insert_object, &o);
}

const void *at_store_object_get(at_store *s, const char *key, size_t *n) {
  *n = 0;
  if (!at_store_mine(s)) return NULL;
  at_db *layer[AT_LAYERS];
  int layers = at_store_layers(s, layer);
  for (int i = 0; i < layers; i++) {
    int rc;
    sqlite3_stmt *st = at_db_st(layer[i], AT_S_OBJECT_GET, &rc);
    char *copy = NULL;
    bool damaged = false;
    if (st) {
      at_st_text(st, 1, key);
      if (sqlite3_step(st) == SQLITE_ROW) {
        object o = {key, sqlite3_column_blob(st, 1), (size_t)sqlite3_column_bytes(st, 1)};
        char sum[AT_UID + 1];
        if (!o.bytes) o.bytes = "";
        object_sum(&o, sum);
        damaged = strcmp(sum, at_or_empty((const char *)sqlite3_column_text(st, 0))) != 0;
        if (!damaged && (copy = sqlite3_malloc64(o.n + 1))) memcpy(copy, o.bytes, *n = o.n);
      }
      rc = sqlite3_reset(st); /* before anything may throw: it ends the read lock */
    }
    if (copy) {
      ir_defer(s->ctx, sqlite3_free, copy);
      void *out = ir_alloc(s->ctx, *n);
      memcpy(out, copy, *n);
      ir_undefer(s->ctx, sqlite3_free, copy);
      sqlite3_free(copy);
      return out;
    }
    if (rc) at_store_complain(s, layer[i], rc, at_code_text(rc));
    if (damaged) at_store_warn_damaged(s, layer[i]);
  }
  return NULL;
}
