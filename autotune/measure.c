/* measure.c — the tuner's end of the lab: workers, their limits, what their deaths mean.
 * See measure.h. */
#include "autotune/measure.h"
#include "autotune/worker.h"
#include "runtime/profile.h"
#include "runtime/threads.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORKERS = 65, SAID = 512, MAX_DROPS = 64 };

typedef struct worker {
  pid_t pid;          /* 0: not running */
  pid_t going;        /* one before it, killed and not waited for yet; 0: none */
  int fd, err;        /* frames; what it says on its standard error */
  at_shared *shared;
  int64_t life;       /* counts starts */
  at_frame answer;
  bool busy;
  int threads;        /* that may use the processor for it */
  double since, cpu;  /* of the last beat seen: moment, processor seconds used by then */
  int64_t beats;
  double limit;
  char said[SAID];    /* the last of its standard error */
  size_t nsaid;
} worker;

/* Code and references: beyond the arena, since they come and go; all end with the lab. */
typedef struct blob {
  struct blob *next, *before;
  _Alignas(16) char bytes[];
} blob;

struct at_lab {
  blob *blobs;
  tn_ctx *ctx;
  at_lab_options o;
  pid_t owner;
  double deadline;
  int nworkers;
  worker w[MAX_WORKERS]; /* 0: checks and times */
  int restarts;
  at_frame request;
  at_subject *subject;   /* the current kernel; null: none */
  int64_t kernel_life;   /* of worker 0 when it took the kernel; 0: it has not */
  int64_t serial;        /* counts the times that a kernel was taken */
  int next_id;
  int64_t rounds;        /* of timing so far: the order of candidates goes by their number */
  int ndrops;            /* candidates that worker 0 is to forget, told with the next load */
  int64_t drops[MAX_DROPS];
  at_machine machine;
  double probe_at;       /* when the probe was asked for */
  bool probing, probed, timing;
  bool (*work)(void *user); /* for meanwhile; may be null */
  void *user;
  at_lab_seconds spent;
};

/* ---- memory ---- */

/* A copy; null when memory is out. */
static void *blob_new(at_lab *lab, const void *p, size_t n) {
  blob *b = malloc(sizeof *b + n);
  if (!b) return NULL;
  memcpy(b->bytes, p, n);
  b->before = NULL;
  b->next = lab->blobs;
  if (b->next) b->next->before = b;
  lab->blobs = b;
  return b->bytes;
}

static void blob_free(at_lab *lab, const void *p) {
  if (!p) return;
  blob *b = (blob *)((char *)(uintptr_t)p - offsetof(blob, bytes));
  if (b->next) b->next->before = b->before;
  *(b->before ? &b->before->next : &lab->blobs) = b->next;
  free(b);
}

/* ---- starting and ending ---- */

static int gone(pid_t pid) {
  int s = 0;
  while (waitpid(pid, &s, 0) < 0 && errno == EINTR) {}
  return s;
}

/* Kills it. A process takes milliseconds to go: who does not ask how it ended need not wait. */
static void worker_leave(worker *w) {
  if (!w->pid) return;
  kill(w->pid, SIGKILL);
  if (w->going) gone(w->going);
  w->going = w->pid;
  close(w->fd);
  close(w->err);
  w->pid = 0;
  w->busy = false;
}

static void worker_end(worker *w, int *status) {
  worker_leave(w);
  int s = w->going ? gone(w->going) : 0;
  w->going = 0;
  if (status) *status = s;
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* their shadows are larger than any limit */
static int64_t address_space(void) {
  long long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f) return 0;
  if (fscanf(f, "%lld", &pages) != 1) pages = 0;
  fclose(f);
  return pages * (int64_t)sysconf(_SC_PAGESIZE);
}

static void limit_memory(const at_lab *lab) {
  int64_t more = lab->o.limits.memory_bytes > 0 ? lab->o.limits.memory_bytes : (int64_t)4 << 30, all = address_space();
  if (all > 0) {
    struct rlimit as = {(rlim_t)(all + more), (rlim_t)(all + more)};
    setrlimit(RLIMIT_AS, &as);
  }
}
#else
static void limit_memory(const at_lab *lab) { (void)lab; }
#endif

static bool worker_start(at_lab *lab, worker *w) {
  if (w->pid) return true;
  int pair[2] = {-1, -1}, err[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
  if (pipe2(err, O_CLOEXEC) != 0) {
    close(pair[0]), close(pair[1]);
    return false;
  }
  memset(w->shared, 0, sizeof *w->shared);
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) {
    close(pair[0]), close(pair[1]), close(err[0]), close(err[1]);
    return false;
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    struct sigaction ignore = {.sa_handler = SIG_IGN}, plain = {.sa_handler = SIG_DFL};
    sigaction(SIGINT, &ignore, NULL); /* an interrupt at the terminal is the tuner's */
    sigaction(SIGTERM, &plain, NULL);
    sigaction(SIGABRT, &plain, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    dup2(err[1], 2);
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) dup2(null, 0), dup2(null, 1);
    for (int i = 0; i < lab->nworkers; i++)
      if (lab->w[i].pid) close(lab->w[i].fd), close(lab->w[i].err);
    close(pair[0]);
    close(err[0]);
    struct rlimit core = {0, 0};
    setrlimit(RLIMIT_CORE, &core);
    limit_memory(lab);
    at_worker_main(pair[1], w->shared, &lab->o);
  }
  close(pair[1]);
  close(err[1]);
  fcntl(err[0], F_SETFL, O_NONBLOCK);
  w->pid = pid;
  w->fd = pair[0];
  w->err = err[0];
  w->life++;
  w->nsaid = 0;
  w->busy = false;
  return true;
}

static void release(void *arg) {
  at_lab *lab = arg;
  if (lab->owner != getpid()) return;
  at_lab_stop(lab); /* all at once: each takes milliseconds to go */
  for (int i = 0; i < lab->nworkers; i++) {
    worker_end(&lab->w[i], NULL);
    at_frame_free(&lab->w[i].answer);
    if (lab->w[i].shared) munmap(lab->w[i].shared, sizeof *lab->w[i].shared);
    lab->w[i].shared = NULL;
  }
  lab->nworkers = 0;
  at_frame_free(&lab->request);
  lab->subject = NULL;
  while (lab->blobs) blob_free(lab, lab->blobs->bytes);
}

at_lab *at_lab_new(tn_ctx *ctx, const at_lab_options *o) {
  at_lab *lab = IR_NEW(ctx, at_lab);
  lab->ctx = ctx;
  lab->o = *o;
  lab->owner = getpid();
  if (lab->o.limits.compile_s <= 0) lab->o.limits.compile_s = 20;
  if (lab->o.limits.run_s <= 0) lab->o.limits.run_s = 10;
  int jobs = o->jobs > 0 ? o->jobs : rt_cpu_count();
  if (jobs > MAX_WORKERS - 1) jobs = MAX_WORKERS - 1;
  ir_defer(ctx, release, lab);
  for (int i = 0; i <= jobs; i++) {
    void *p = mmap(NULL, sizeof(at_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) ir_fail(ctx, TN_ERESOURCE, "no memory for the tuner's workers");
    lab->w[i].shared = p;
    lab->w[i].threads = !i && o->threads > 1 ? o->threads : 1;
    lab->nworkers = i + 1;
  }
  return lab;
}

void at_lab_stop(at_lab *lab) {
  for (int i = 0; i < lab->nworkers; i++) worker_leave(&lab->w[i]);
}

void at_lab_free(at_lab *lab) {
  if (!lab) return;
  ir_undefer(lab->ctx, release, lab);
  release(lab);
}

void at_lab_deadline(at_lab *lab, double moment) { lab->deadline = moment; }
void at_lab_meanwhile(at_lab *lab, bool (*work)(void *user), void *user) {
  lab->work = work;
  lab->user = user;
}
void at_lab_run_limit(at_lab *lab, double seconds) { lab->o.limits.run_s = seconds; }
bool at_lab_over(const at_lab *lab) {
  return (lab->o.stop && *lab->o.stop) || (lab->deadline > 0 && rt_now() >= lab->deadline);
}
int at_lab_restarts(const at_lab *lab) { return lab->restarts; }
at_lab_seconds at_lab_spent(const at_lab *lab) { return lab->spent; }

/* ---- asking ---- */

typedef enum outcome { ANSWERED, DIED, LATE, GIVEN_UP } outcome;

static void listen_to(worker *w) {
  char buffer[512];
  for (;;) {
    ssize_t k = read(w->err, buffer, sizeof buffer);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) return;
    for (ssize_t i = 0; i < k; i++) {
      if (w->nsaid == SAID - 1) memmove(w->said, w->said + 1, --w->nsaid);
      w->said[w->nsaid++] = buffer[i];
    }
    w->said[w->nsaid] = 0;
  }
}

/* Processor seconds that the worker has used. */
static double used(const worker *w) {
  clockid_t clock;
  struct timespec t;
  if (clock_getcpuclockid(w->pid, &clock) || clock_gettime(clock, &t)) return 0;
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void heard(worker *w, double now) {
  w->beats = w->shared->beats;
  w->since = now;
  w->cpu = used(w);
}

/* Seconds until the worker may be late: limits are processor time, so that a busy machine makes no
 * candidate hang; one that sleeps has PATIENCE times as long. */
static double until_late(const worker *w, double now) {
  enum { PATIENCE = 10 };
  double passed = now - w->since;
  if (passed <= w->limit) return w->limit - passed;
  double left = w->limit - (used(w) - w->cpu) / w->threads, most = PATIENCE * w->limit - passed;
  return fmin(left, most);
}

static bool ask(at_lab *lab, worker *w, double limit) {
  w->limit = limit;
  heard(w, rt_now());
  w->shared->note[0] = 0;
  w->shared->current = 0;
  at_frame_clear(&w->answer);
  w->busy = at_frame_send(w->fd, &lab->request);
  return w->busy;
}

/* Looks at the busy workers once, waiting a little. Returns one that is through, with how. */
static worker *await(at_lab *lab, outcome *how) {
  struct pollfd fds[MAX_WORKERS];
  worker *of[MAX_WORKERS];
  for (;;) {
    nfds_t n = 0;
    for (int i = 0; i < lab->nworkers; i++)
      if (lab->w[i].busy) of[n] = &lab->w[i], fds[n++] = (struct pollfd){.fd = lab->w[i].fd, .events = POLLIN};
    if (!n) return NULL;
    double now = rt_now(), wait = 0.1;
    if (lab->deadline > 0 && lab->deadline - now < wait) wait = lab->deadline - now;
    for (nfds_t i = 0; i < n; i++) wait = fmin(wait, until_late(of[i], now));
    if (lab->work && !lab->timing && lab->work(lab->user)) wait = 0;
    poll(fds, n, wait > 0 ? (int)(wait * 1e3) + 1 : 0);
    now = rt_now();
    for (nfds_t i = 0; i < n; i++) {
      worker *w = of[i];
      listen_to(w);
      int got = at_frame_poll(w->fd, &w->answer);
      if (got) {
        w->busy = false;
        *how = got > 0 ? ANSWERED : DIED;
        return w;
      }
      if (w->shared->beats != w->beats) heard(w, now);
      if (until_late(w, now) < 0) {
        *how = LATE;
        return w;
      }
    }
    if (at_lab_over(lab)) {
      *how = GIVEN_UP;
      return of[0];
    }
  }
}

/* The last line of what it said, without the end of line. */
static const char *last_words(at_lab *lab, worker *w) {
  listen_to(w);
  size_t n = w->nsaid;
  while (n && (w->said[n - 1] == '\n' || w->said[n - 1] == ' ')) n--;
  size_t from = n;
  while (from && w->said[from - 1] != '\n') from--;
  return ir_strndup(lab->ctx, w->said + from, n - from);
}

/* The worker is gone or must go: what that says about the candidate. */
static at_status bury(at_lab *lab, worker *w, outcome how, const char *doing, const char **reason) {
  int status = 0;
  if (how == DIED) { /* it is on its way out by itself: its own status, not our kill */
    for (int i = 0; i < 200; i++) {
      siginfo_t info = {0};
      if (waitid(P_PID, (id_t)w->pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid) break;
      poll(NULL, 0, 5);
    }
  }
  const char *said = last_words(lab, w);
  lab->restarts++;
  if (how == GIVEN_UP) {
    worker_leave(w);
    return AT_OK;
  }
  worker_end(w, &status);
  if (how == LATE) {
    *reason = ir_format(lab->ctx, "%s took more than %.3g s", doing, w->limit);
    return AT_HANG;
  }
  if (WIFEXITED(status)) {
    bool oom = WEXITSTATUS(status) == AT_EXIT_OOM;
    *reason = oom ? "out of memory" : ir_format(lab->ctx, "exit %d while %s%s%s", WEXITSTATUS(status), doing, *said ? ": " : "", said);
    return oom ? AT_OOM : AT_CRASH;
  }
  if (w->shared->note[0]) {
    *reason = ir_strdup(lab->ctx, w->shared->note);
    return AT_WRONG;
  }
  int sig = WTERMSIG(status);
  bool oom = sig == SIGKILL || strstr(said, "bad_alloc") || strstr(said, "ut of memory") || strstr(said, "llocation failed");
  *reason = ir_format(lab->ctx, "%s while %s%s%s", strsignal(sig), doing, *said ? ": " : "", said);
  return oom ? AT_OOM : AT_CRASH;
}

/* Waits for what worker 0 was asked, if it was. On ANSWERED the answer has been read up to its reason. */
static outcome await_first(at_lab *lab, bool asked, const char *doing, at_status *status, const char **reason) {
  worker *w = &lab->w[0];
  outcome how = DIED;
  if (asked) await(lab, &how);
  if (how == ANSWERED) {
    *status = (at_status)at_get_int(&w->answer);
    const char *why = at_get_text(&w->answer);
    if (*status != AT_OK) *reason = ir_strdup(lab->ctx, why);
    return how;
  }
  *status = bury(lab, w, how, doing, reason);
  return how;
}

/* One question to worker 0, which runs, answered or not. */
static outcome ask_first(at_lab *lab, double limit, const char *doing, at_status *status, const char **reason) {
  return await_first(lab, ask(lab, &lab->w[0], limit), doing, status, reason);
}

static at_frame *begin(at_lab *lab, at_request what) {
  at_frame_clear(&lab->request);
  at_put_int(&lab->request, what);
  return &lab->request;
}

void at_lab_probe(at_lab *lab) {
  if (lab->probing || lab->probed || !worker_start(lab, &lab->w[0])) return;
  begin(lab, AT_DO_PROBE);
  lab->probe_at = rt_now();
  lab->probing = ask(lab, &lab->w[0], lab->o.limits.compile_s);
}

at_machine at_lab_machine(at_lab *lab) {
  double start = rt_now();
  lab->machine.l3_bytes = (int64_t)sysconf(_SC_LEVEL3_CACHE_SIZE) > 0 ? (int64_t)sysconf(_SC_LEVEL3_CACHE_SIZE) : 0;
  at_lab_probe(lab);
  if (!lab->probing) return lab->machine;
  at_status status;
  const char *reason;
  lab->probing = false;
  if (await_first(lab, true, "probing", &status, &reason) == ANSWERED) {
    lab->machine.ghz = at_get_real(&lab->w[0].answer);
    lab->machine.fma_gflops = at_get_real(&lab->w[0].answer);
    double took = at_get_real(&lab->w[0].answer);
    lab->probed = true;
    if (status != AT_OK) ir_log(lab->ctx, "the machine's peak cannot be measured: %s", reason);
    lab->spent.checking += fmin(rt_now() - lab->probe_at, took); /* no more than that, however late the answer is read */
  } else lab->spent.checking += rt_now() - start;
  return lab->machine;
}

/* ---- the kernel ---- */

void at_subject_free(at_lab *lab, at_subject *s) {
  for (int i = 0; i < s->nreferences; i++) blob_free(lab, s->reference[i]);
  s->nreferences = 0;
}

/* Keeping them is only to save time: what is too large or finds no memory is computed again. */
static void keep_references(at_lab *lab, at_subject *s, at_frame *f) {
  s->sampled = at_get_int(f) != 0;
  size_t all = 0;
  int n = 0;
  void *p[AT_MOST_BUFFERS];
  size_t bytes[AT_MOST_BUFFERS];
  while (n < AT_MOST_BUFFERS && f->at < f->n && !f->bad) {
    const void *from = at_get_bytes(f, &bytes[n]);
    all += bytes[n];
    p[n] = all > 64 << 20 || f->bad ? NULL : blob_new(lab, from, bytes[n]);
    if (!p[n]) {
      while (n) blob_free(lab, p[--n]);
      return;
    }
    n++;
  }
  s->reference = IR_NEW_ARRAY(lab->ctx, void *, n + 1);
  s->bytes = IR_NEW_ARRAY(lab->ctx, size_t, n + 1);
  memcpy(s->reference, p, (size_t)n * sizeof *p);
  memcpy(s->bytes, bytes, (size_t)n * sizeof *bytes);
  s->nreferences = n;
}

/* Sees to it that worker 0 lives and knows the kernel. Null, or why not; "" when time is up. */
static const char *ready(at_lab *lab) {
  worker *w = &lab->w[0];
  if (at_lab_over(lab)) return "";
  if (!worker_start(lab, w)) return "a worker cannot be started";
  if (lab->kernel_life == w->life) return NULL;
  at_subject *s = lab->subject;
  at_frame *f = begin(lab, AT_DO_KERNEL);
  at_put_text(f, s->text);
  at_put_int(f, s->sampled);
  at_put_int(f, s->nreferences);
  for (int i = 0; i < s->nreferences; i++) at_put_bytes(f, s->reference[i], s->bytes[i]);
  at_status status;
  const char *reason = NULL;
  outcome how = ask_first(lab, lab->o.limits.compile_s + lab->o.limits.run_s, "computing the reference", &status, &reason);
  if (how == GIVEN_UP) return "";
  if (status != AT_OK) return reason ? reason : "no reference";
  if (!s->nreferences) keep_references(lab, s, &w->answer);
  lab->kernel_life = w->life;
  lab->serial++;
  return NULL;
}

const char *at_lab_kernel(at_lab *lab, at_subject *s) {
  if (!s->text) s->text = ir_kernel_print(lab->ctx, s->kernel);
  lab->subject = s;
  lab->kernel_life = 0;
  double start = rt_now();
  const char *why = ready(lab);
  lab->spent.checking += rt_now() - start;
  return why;
}

static void judge(at_candidate *c, at_status status, const char *reason) {
  c->status = status;
  c->reason = reason;
}

/* ---- compiling ---- */

static void take_object(at_lab *lab, worker *w, at_candidate *c) {
  at_frame *f = &w->answer;
  at_status status = (at_status)at_get_int(f);
  const char *why = at_get_text(f);
  c->compile_ms = at_get_real(f);
  c->spills = (int)at_get_int(f);
  if (status != AT_OK) {
    judge(c, status, ir_strdup(lab->ctx, why));
    return;
  }
  c->tasks = at_get_int(f);
  c->scratch_bytes = at_get_int(f);
  c->nphases = (int)at_get_int(f);
  for (int i = 0; i < CG_MAX_PHASES; i++) c->phase[i] = (int32_t)at_get_int(f);
  c->nlayouts = (int)at_get_int(f);
  c->layouts = IR_NEW_ARRAY(lab->ctx, const char *, c->nlayouts + 1);
  for (int i = 0; i < c->nlayouts; i++) c->layouts[i] = ir_intern(lab->ctx, at_get_text(f));
  size_t n;
  const void *bytes = at_get_bytes(f, &n);
  c->object = f->bad ? NULL : blob_new(lab, bytes, n);
  if (!c->object) {
    judge(c, AT_COMPILE_ERROR, "the worker's answer is broken");
    return;
  }
  c->object_size = n;
}

static void compile_all(at_lab *lab, int n, at_candidate *const *c) {
  at_candidate *of[MAX_WORKERS] = {0};
  int next = 0, busy = 0;
  for (;;) {
    while (next < n && !at_lab_over(lab)) {
      if (c[next]->object || c[next]->status != AT_OK) {
        next++;
        continue;
      }
      int free_one = 0;
      for (int i = 1; i < lab->nworkers && !free_one; i++)
        if (!of[i]) free_one = i;
      if (!free_one) break;
      worker *w = &lab->w[free_one];
      at_candidate *mine = c[next++];
      if (!worker_start(lab, w)) {
        judge(mine, AT_COMPILE_ERROR, "a worker cannot be started");
        continue;
      }
      at_frame *f = begin(lab, AT_DO_COMPILE);
      at_put_text(f, lab->subject->text);
      at_put_text(f, mine->schedule);
      if (!ask(lab, w, lab->o.limits.compile_s)) { /* it died while idle: not this candidate's doing */
        worker_end(w, NULL);
        if (!worker_start(lab, w) || !ask(lab, w, lab->o.limits.compile_s)) {
          judge(mine, AT_COMPILE_ERROR, "a worker cannot be started");
          continue;
        }
      }
      of[free_one] = mine;
      busy++;
    }
    if (!busy) return;
    outcome how;
    worker *w = await(lab, &how);
    if (!w) return;
    int i = (int)(w - lab->w);
    at_candidate *mine = of[i];
    of[i] = NULL;
    busy--;
    if (how == ANSWERED) {
      take_object(lab, w, mine);
      continue;
    }
    const char *reason = NULL;
    at_status status = bury(lab, w, how, "compiling", &reason);
    if (how != GIVEN_UP) judge(mine, status, reason);
  }
}

void at_lab_compile(at_lab *lab, int n, at_candidate *const *c) {
  double start = rt_now();
  compile_all(lab, n, c);
  lab->spent.compiling += rt_now() - start;
}

/* ---- checking ---- */

bool at_lab_has(const at_lab *lab, const at_candidate *c) {
  return c->id && c->serial == lab->serial && lab->w[0].pid && lab->kernel_life == lab->w[0].life;
}

static outcome load_one(at_lab *lab, at_candidate *c) {
  const char *why = ready(lab);
  if (why) {
    if (*why) judge(c, AT_COMPILE_ERROR, why);
    return *why ? DIED : GIVEN_UP;
  }
  int id = ++lab->next_id;
  at_frame *f = begin(lab, AT_DO_LOAD);
  at_put_int(f, lab->ndrops);
  while (lab->ndrops) at_put_int(f, lab->drops[--lab->ndrops]);
  at_put_int(f, id);
  at_put_text(f, c->schedule);
  at_put_int(f, c->tasks);
  at_put_int(f, c->scratch_bytes);
  at_put_int(f, c->nphases);
  for (int i = 0; i < CG_MAX_PHASES; i++) at_put_int(f, c->phase[i]);
  at_put_int(f, c->nlayouts);
  for (int i = 0; i < c->nlayouts; i++) at_put_text(f, c->layouts[i]);
  at_put_bytes(f, c->object, c->object_size);
  at_status status;
  const char *reason = NULL;
  outcome how = ask_first(lab, lab->o.limits.run_s, "the first run", &status, &reason);
  if (how == GIVEN_UP) return how;
  if (status != AT_OK) judge(c, status, reason);
  else c->id = id, c->serial = lab->serial;
  return how;
}

static void check_all(at_lab *lab, int n, at_candidate *const *c) {
  for (int pass = 0; pass < 1 + n; pass++) { /* a death sends the earlier ones back */
    bool again = false;
    for (int i = 0; i < n && !again; i++) {
      if (!c[i]->object || c[i]->status != AT_OK) continue;
      if (at_lab_has(lab, c[i])) continue;
      outcome how = load_one(lab, c[i]);
      if (how == GIVEN_UP) return;
      again = how != ANSWERED;
    }
    if (!again) return;
  }
}

void at_lab_check(at_lab *lab, int n, at_candidate *const *c) {
  double start = rt_now();
  check_all(lab, n, c);
  lab->spent.checking += rt_now() - start;
}

/* ---- timing ---- */

static void add_sample(at_lab *lab, at_candidate *c, double ns, bool disturbed) {
  IR_PUSH(lab->ctx, c->samples, c->n, ns);
  c->disturbed += disturbed;
}

static bool time_all(at_lab *lab, int n, at_candidate *const *c, int rounds) {
  at_candidate *of[AT_MOST_TIMED];
  int k = 0;
  for (int i = 0; i < n && k < AT_MOST_TIMED; i++)
    if (c[i]->status == AT_OK && at_lab_has(lab, c[i])) of[k++] = c[i];
  if (!k) return false;
  while (rounds > 0 && k > 0) {
    if (at_lab_over(lab)) return false;
    /* short questions, so that a deadline does not lose samples that were taken */
    double each = 0;
    int ask_for = 1;
    for (int i = 0; i < k; i++) each += of[i]->n ? fmax(of[i]->samples[of[i]->n - 1] * 1e-9, 300e-6) : 0;
    if (each > 0 && of[0]->n) ask_for = (int)(0.2 / each);
    if (ask_for < 1) ask_for = 1;
    if (ask_for > rounds) ask_for = rounds;
    at_frame *f = begin(lab, AT_DO_TIME);
    at_put_int(f, lab->rounds);
    at_put_int(f, ask_for);
    at_put_int(f, k);
    for (int i = 0; i < k; i++) at_put_int(f, of[i]->id);
    at_status status;
    const char *reason = NULL;
    worker *w = &lab->w[0];
    outcome how = ask_first(lab, lab->o.limits.run_s, "timing", &status, &reason);
    if (how == GIVEN_UP) return false;
    if (how != ANSWERED) {
      for (int i = 0; i < k; i++)
        if (of[i]->id == w->shared->current) judge(of[i], status, reason);
      return false;
    }
    if (status != AT_OK) return false;
    for (int r = 0; r < ask_for; r++)
      for (int i = 0; i < k; i++) {
        double ns = at_get_real(&w->answer);
        bool disturbed = at_get_int(&w->answer) != 0;
        if (!w->answer.bad) add_sample(lab, of[i], ns, disturbed);
      }
    rounds -= ask_for;
    lab->rounds += ask_for;
  }
  return true;
}

bool at_lab_time(at_lab *lab, int n, at_candidate *const *c, int rounds) {
  double start = rt_now();
  lab->timing = true;
  bool whole = time_all(lab, n, c, rounds);
  lab->timing = false;
  lab->spent.timing += rt_now() - start;
  return whole;
}

void at_lab_unload(at_lab *lab, at_candidate *c) {
  if (at_lab_has(lab, c) && lab->ndrops < MAX_DROPS) lab->drops[lab->ndrops++] = c->id; /* else it stays until the next kernel */
  c->id = 0;
}

void at_lab_drop(at_lab *lab, at_candidate *c) {
  at_lab_unload(lab, c);
  blob_free(lab, c->object);
  c->object = NULL;
}
