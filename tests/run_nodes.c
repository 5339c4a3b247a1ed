/* run_nodes.c — runs a folder of ONNX backend tests (NAME/model.onnx, NAME/test_data_set_K), each in
 * a process of its own, and prints what passed, failed and is not supported per operator.
 *
 *   run_nodes DIR [--threshold PERCENT] [--only TEXT] [--engine jit|interp] [--jobs N] [--seconds S]
 *             [--json FILE] [--failures FILE] [--quiet]
 *
 * Status 1 when fewer than PERCENT of all tests pass, or when one crashes or hangs.
 * Tolerances are those of the onnx package's own runner: rtol 1e-3 (bfloat16: 2^-6), atol 1e-7;
 * integers and booleans must be equal. */
#include "frontend/compare.h"
#include "frontend/import.h"
#include "frontend/inputs.h"
#include "lower/lower.h"
#include "runtime/module.h"
#include "runtime/program_interp.h"
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef enum outcome { PASSED, FAILED, UNSUPPORTED, CRASHED, OUTCOMES } outcome;
static const char *const outcome_names[OUTCOMES] = {"passed", "failed", "unsupported", "crashed"};

typedef struct test {
  char *name, *op, *reason;
  outcome outcome;
  double seconds;
} test;

static struct {
  const char *dir, *only, *json, *failures;
  double threshold;
  bool interp, quiet;
  int jobs, seconds;
} options = {.threshold = 0, .jobs = 1, .seconds = 10};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the child: one test ---- */

typedef struct job {
  const char *name;
  int fd; /* answers go there, a line each: "op NAME", then "OUTCOME reason" */
} job;

static void answer(int fd, const char *word, const char *text) {
  char line[2048];
  int n = snprintf(line, sizeof line - 1, "%s %s", word, text);
  if (n > (int)sizeof line - 2) n = (int)sizeof line - 2;
  for (int i = 0; i < n; i++)
    if (line[i] == '\n') line[i] = ' ';
  line[n++] = '\n';
  if (write(fd, line, (size_t)n) != n) _exit(99);
}

/* The operator that a test is about: the one of its node; of the test it was expanded from. */
static void find_op(tn_ctx *ctx, void *arg) {
  job *j = arg;
  const char *tail = strstr(j->name, "_expanded");
  const char *base = tail ? ir_strndup(ctx, j->name, (size_t)(tail - j->name)) : j->name;
  const char *path = ir_format(ctx, "%s/%s/model.onnx", options.dir, base);
  if (access(path, F_OK) != 0) path = ir_format(ctx, "%s/%s/model.onnx", options.dir, j->name);
  const fe_onnx *m = fe_onnx_load(ctx, path);
  answer(j->fd, "op", m->graph->n_node ? m->graph->node[m->graph->n_node - 1].op : "none");
}

static void run_program(tn_ctx *ctx, const ir_program *p, const void *const *in, void *const *out) {
  void *state = p->state_bytes ? fe_buffer(ctx, p->state_bytes) : NULL;
  if (options.interp) {
    rt_program_interp(ctx, p, in, out, NULL, state, NULL);
    return;
  }
  rt_module *m = rt_module_build(ctx, p, NULL);
  int code = rt_run(m, in, out, state, NULL);
  if (code) ir_fail(ctx, TN_EINTERNAL, "the run failed: %s", cg_run_error(code));
}

static void run_set(tn_ctx *ctx, job *j, const char *model, const char *dir) {
  const fe_onnx *o = fe_onnx_load(ctx, model);
  ir_graph *g = fe_import_model(ctx, o, NULL);
  const fe_onnx_type **in_type = IR_NEW_ARRAY(ctx, const fe_onnx_type *, g->ninputs + 1), **out_type = IR_NEW_ARRAY(ctx, const fe_onnx_type *, o->graph->n_out + 1);
  for (int i = 0; i < g->ninputs; i++)
    for (int k = 0; k < o->graph->n_in; k++)
      if (strcmp(o->graph->in[k].name, g->inputs[i]->name) == 0) in_type[i] = &o->graph->in[k].type;
  for (int i = 0; i < o->graph->n_out; i++) out_type[i] = &o->graph->out[i].type;
  fe_array *given, *want;
  int nin = fe_test_data(ctx, dir, "input", g->ninputs, in_type, &given);
  if (nin < g->ninputs) ir_fail(ctx, TN_EINPUT, "%s: %d inputs given, %d needed", dir, nin, g->ninputs);
  const void **in = IR_NEW_ARRAY(ctx, const void *, g->ninputs + 1);
  for (int i = 0; i < g->ninputs; i++) {
    fe_bind_input(ctx, g, i, &given[i]);
    in[i] = given[i].data;
  }
  lw_bind_dims(ctx, g, 0, NULL, NULL);
  bool *shapes = fe_shape_inputs(ctx, g); /* specialised on first use */
  for (int i = 0; i < g->ninputs; i++)
    if (shapes[i]) fe_freeze_input(ctx, g, i, in[i]);
  lw_options lo = {.target = cg_target_find(ctx, NULL, NULL)};
  ir_program *p = lw_compile(ctx, g, &lo);
  void **out = IR_NEW_ARRAY(ctx, void *, p->noutputs + 1);
  const ir_slot **slot = IR_NEW_ARRAY(ctx, const ir_slot *, p->noutputs + 1);
  for (int i = 0; i < p->nslots; i++)
    if (p->slots[i].kind == IR_SLOT_OUTPUT && !out[p->slots[i].index]) {
      slot[p->slots[i].index] = &p->slots[i];
      out[p->slots[i].index] = fe_buffer(ctx, p->slots[i].bytes);
    }
  run_program(ctx, p, in, out);
  int nout = fe_test_data(ctx, dir, "output", o->graph->n_out, out_type, &want);
  if (!nout) ir_fail(ctx, TN_EINPUT, "%s: no outputs", dir);
  for (int i = 0; i < nout; i++) {
    fe_tolerance tol = {want[i].dtype == TN_BF16 ? 0x1p-6 : 1e-3, 1e-7};
    bool fits = slot[i]->dtype == want[i].dtype && slot[i]->rank == want[i].rank;
    for (int a = 0; fits && a < want[i].rank; a++) fits = slot[i]->dims[a] == want[i].dims[a];
    if (!fits)
      ir_fail(ctx, TN_EWRONG, "output %d is %s, should be %s", i, fe_shape_text(ctx, slot[i]->dtype, slot[i]->rank, slot[i]->dims),
              fe_shape_text(ctx, want[i].dtype, want[i].rank, want[i].dims));
    fe_difference d = fe_compare(want[i].dtype, want[i].count, out[i], want[i].data, &tol);
    if (!d.equal) ir_fail(ctx, TN_EWRONG, "output %d: %s", i, fe_difference_text(ctx, &d, want[i].rank, want[i].dims));
  }
  (void)j;
}

static void run_test(tn_ctx *ctx, void *arg) {
  job *j = arg;
  const char *folder = ir_format(ctx, "%s/%s", options.dir, j->name);
  for (int k = 0;; k++) {
    const char *dir = ir_format(ctx, "%s/test_data_set_%d", folder, k);
    if (access(dir, F_OK) != 0) {
      if (!k) ir_fail(ctx, TN_EINPUT, "%s: no test_data_set_0", folder);
      return;
    }
    run_set(ctx, j, ir_format(ctx, "%s/model.onnx", folder), dir);
  }
}

static void child(job *j) {
  /* of processor time, so that a busy machine makes no test hang; six times as much on the clock */
  setrlimit(RLIMIT_CPU, &(struct rlimit){(rlim_t)options.seconds, (rlim_t)options.seconds + 1});
  alarm(6 * (unsigned)options.seconds);
  tn_ctx *ctx = tn_ctx_new(NULL);
  if (!ctx) _exit(98);
  ir_protect(ctx, find_op, j);
  tn_status s = ir_protect(ctx, run_test, j);
  if (s == TN_OK) answer(j->fd, "passed", "");
  else answer(j->fd, s == TN_EUNSUPPORTED ? "unsupported" : "failed", ir_error(ctx));
  _exit(0);
}

/* ---- the parent ---- */

typedef struct slot {
  pid_t pid;
  int fd;
  test *t;
  double start;
} slot;

static void collect(slot *s, int status) {
  char text[4096];
  size_t n = 0;
  ssize_t got;
  while (n < sizeof text - 1 && (got = read(s->fd, text + n, sizeof text - 1 - n)) > 0) n += (size_t)got;
  text[n] = 0;
  close(s->fd);
  test *t = s->t;
  t->seconds = now() - s->start;
  t->outcome = CRASHED;
  t->op = strdup("?");
  for (char *line = text, *end; *line; line = end + 1) {
    end = strchr(line, '\n');
    if (!end) break;
    *end = 0;
    if (strncmp(line, "op ", 3) == 0) {
      free(t->op);
      t->op = strdup(line + 3);
      continue;
    }
    for (int k = 0; k < OUTCOMES; k++) {
      size_t len = strlen(outcome_names[k]);
      if (strncmp(line, outcome_names[k], len) == 0 && line[len] == ' ') {
        t->outcome = (outcome)k;
        t->reason = strdup(line + len + 1);
      }
    }
  }
  if (WIFSIGNALED(status) || !t->reason) {
    char why[64];
    t->outcome = CRASHED;
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGXCPU)) snprintf(why, sizeof why, "did not end within %d s", options.seconds);
    else if (WIFSIGNALED(status)) snprintf(why, sizeof why, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else snprintf(why, sizeof why, "exit status %d without an answer", WEXITSTATUS(status));
    t->reason = strdup(why);
  }
}

static void start(slot *s, test *t) {
  int ends[2];
  if (pipe(ends) != 0) perror("pipe"), exit(70);
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0) perror("fork"), exit(70);
  if (pid == 0) {
    close(ends[0]);
    job j = {t->name, ends[1]};
    child(&j);
  }
  close(ends[1]);
  *s = (slot){pid, ends[0], t, now()};
}

static void run_all(int n, test *tests) {
  slot *slots = calloc((size_t)options.jobs, sizeof *slots);
  int next = 0, running = 0;
  while (next < n || running) {
    for (int i = 0; i < options.jobs && next < n; i++)
      if (!slots[i].pid) start(&slots[i], &tests[next++]), running++;
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0) perror("waitpid"), exit(70);
    for (int i = 0; i < options.jobs; i++)
      if (slots[i].pid == pid) {
        collect(&slots[i], status);
        slots[i].pid = 0;
        running--;
      }
  }
  free(slots);
}

static int by_name(const void *a, const void *b) { return strcmp(((const test *)a)->name, ((const test *)b)->name); }
static int by_op(const void *a, const void *b) {
  const test *x = a, *y = b;
  int c = strcmp(x->op, y->op);
  return c ? c : strcmp(x->name, y->name);
}

static test *list_tests(int *count) {
  DIR *d = opendir(options.dir);
  if (!d) fprintf(stderr, "%s: %s\n", options.dir, strerror(errno)), exit(2);
  test *tests = NULL;
  int n = 0, cap = 0;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.' || (options.only && !strstr(e->d_name, options.only))) continue;
    if (n == cap) tests = realloc(tests, (size_t)(cap = cap ? 2 * cap : 64) * sizeof *tests);
    tests[n++] = (test){.name = strdup(e->d_name)};
  }
  closedir(d);
  if (n) qsort(tests, (size_t)n, sizeof *tests, by_name);
  *count = n;
  return tests;
}

static void put_json(FILE *f, const char *s) {
  fputc('"', f);
  for (; *s; s++) {
    if (*s == '"' || *s == '\\') fputc('\\', f);
    if ((unsigned char)*s >= 32) fputc(*s, f);
  }
  fputc('"', f);
}

static FILE *open_or_die(const char *path) {
  FILE *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
  if (!f) fprintf(stderr, "%s: %s\n", path, strerror(errno)), exit(5);
  return f;
}

static void write_json(int n, const test *t, const int *total, double seconds) {
  FILE *f = open_or_die(options.json);
  fprintf(f, "{\"tests\": %d", n);
  for (int k = 0; k < OUTCOMES; k++) fprintf(f, ", \"%s\": %d", outcome_names[k], total[k]);
  fprintf(f, ", \"percent\": %.2f, \"seconds\": %.1f, \"cases\": [", n ? 100.0 * total[PASSED] / n : 0, seconds);
  for (int i = 0; i < n; i++) {
    fprintf(f, "%s\n{\"name\": ", i ? "," : "");
    put_json(f, t[i].name);
    fputs(", \"op\": ", f);
    put_json(f, t[i].op);
    fprintf(f, ", \"outcome\": \"%s\", \"seconds\": %.3f, \"reason\": ", outcome_names[t[i].outcome], t[i].seconds);
    put_json(f, t[i].reason);
    fputc('}', f);
  }
  fputs("\n]}\n", f);
  if (f != stdout) fclose(f);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(a, "--quiet") == 0) options.quiet = true;
    else if (a[0] != '-') options.dir = a;
    else if (!v) fprintf(stderr, "%s needs a value\n", a), exit(2);
    else {
      i++;
      if (strcmp(a, "--threshold") == 0) options.threshold = atof(v);
      else if (strcmp(a, "--only") == 0) options.only = v;
      else if (strcmp(a, "--engine") == 0) options.interp = strcmp(v, "interp") == 0;
      else if (strcmp(a, "--jobs") == 0) options.jobs = atoi(v);
      else if (strcmp(a, "--seconds") == 0) options.seconds = atoi(v);
      else if (strcmp(a, "--json") == 0) options.json = v;
      else if (strcmp(a, "--failures") == 0) options.failures = v;
      else fprintf(stderr, "unknown option %s\n", a), exit(2);
    }
  }
  if (!options.dir || options.jobs < 1) fprintf(stderr, "usage: run_nodes DIR [options]\n"), exit(2);
  tn_ctx *ctx = tn_ctx_new(NULL); /* LLVM sets up its tables once, before the forks */
  if (ctx) cg_target_find(ctx, NULL, NULL);
  int n, total[OUTCOMES] = {0};
  test *tests = list_tests(&n);
  double begin = now();
  run_all(n, tests);
  double seconds = now() - begin;
  for (int i = 0; i < n; i++) total[tests[i].outcome]++;
  if (options.json) write_json(n, tests, total, seconds);
  FILE *f = options.failures ? open_or_die(options.failures) : stdout;
  if (n) qsort(tests, (size_t)n, sizeof *tests, by_op);
  if (!options.quiet) {
    printf("%-32s %8s %8s %12s %8s\n", "operator", "passed", "failed", "unsupported", "crashed");
    for (int i = 0, k; i < n; i = k) {
      int c[OUTCOMES] = {0};
      for (k = i; k < n && strcmp(tests[k].op, tests[i].op) == 0; k++) c[tests[k].outcome]++;
      printf("%-32s %8d %8d %12d %8d\n", tests[i].op, c[PASSED], c[FAILED], c[UNSUPPORTED], c[CRASHED]);
    }
  }
  for (int i = 0; i < n; i++)
    if (tests[i].outcome != PASSED) fprintf(f, "%s %s [%s]: %s\n", outcome_names[tests[i].outcome], tests[i].name, tests[i].op, tests[i].reason);
  if (f != stdout) fclose(f);
  double percent = n ? 100.0 * total[PASSED] / n : 0;
  printf("%d tests: %d passed (%.1f %%), %d failed, %d unsupported, %d crashed or hung; %.1f s\n", n, total[PASSED], percent,
         total[FAILED], total[UNSUPPORTED], total[CRASHED], seconds);
  if (percent < options.threshold) printf("below the threshold of %.1f %%\n", options.threshold);
  tn_ctx_free(ctx);
  return n == 0 || percent < options.threshold || total[CRASHED] ? 1 : 0;
}
