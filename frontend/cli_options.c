/* cli_options.c — arguments and help texts. */
#include "frontend/cli.h"
#include "codegen/target.h"
#include "lower/lower.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void cli_pair(cli *c, const char *option, const char *text, const char **name, const char **value) {
  const char *eq = strrchr(text, '='); /* names may hold '=', sizes and usual paths do not */
  if (strcmp(option, "--input") == 0) eq = strchr(text, '=');
  if (!eq || eq == text || !eq[1]) ir_fail(c->ctx, TN_EUSAGE, "%s: '%s' is not NAME=VALUE", option, text);
  *name = ir_strndup(c->ctx, text, (size_t)(eq - text));
  *value = eq + 1;
}

int64_t cli_integer(cli *c, const char *option, const char *text) {
  char *end;
  errno = 0;
  long long v = strtoll(text, &end, 10);
  if (end == text || *end || errno || v < 0) ir_fail(c->ctx, TN_EUSAGE, "%s: '%s' is not a number of 0 or more", option, text);
  return v;
}

static double real(cli *c, const cli_option *o, const char *text) {
  char *end;
  double v = strtod(text, &end), unit = 1;
  if (end != text && o->kind == CLI_SECONDS) {
    if (strcmp(end, "ms") == 0) unit = 1e-3, end += 2;
    else if (strcmp(end, "s") == 0) end++;
    else if (strcmp(end, "m") == 0 || strcmp(end, "min") == 0) unit = 60, end += strlen(end);
    else if (strcmp(end, "h") == 0) unit = 3600, end++;
  }
  if (end == text || *end || !(v >= 0) || v > 1e15) ir_fail(c->ctx, TN_EUSAGE, "%s: '%s' is not a %s", o->name, text, o->kind == CLI_SECONDS ? "time such as 60s" : "number");
  return v * unit;
}

enum { MAX_COMMON = 16 };

static int common_options(cli *c, cli_option *o) {
  int n = 0;
  o[n++] = (cli_option){"--dim", CLI_TEXTS, &c->dims, "NAME=N", "size of a symbolic dimension; 1,8,32: of several; 1..32: of a batch, any"};
  o[n++] = (cli_option){"--at", CLI_TEXTS, &c->at, "NAME=N", "with several sizes: the one to run at (default: the largest)"};
  o[n++] = (cli_option){"--cpu", CLI_TEXT, &c->cpu, "NAME", "native (default), x86-64, x86-64-v2, x86-64-v3, x86-64-v4, ..."};
  o[n++] = (cli_option){"--triple", CLI_TEXT, &c->triple, "T", "of another machine, such as aarch64-linux-gnu"};
  o[n++] = (cli_option){"--threads", CLI_INT, &c->threads, "N", "threads that run (default: all CPUs)"};
  o[n++] = (cli_option){"--db", CLI_TEXT, &c->db, "FILE", "tuning store; 'none': untuned"};
  o[n++] = (cli_option){"--plan", CLI_TEXT, &c->plan, "FILE", "schedules from a file instead of the store"};
  o[n++] = (cli_option){"--frozen", CLI_FLAG, &c->frozen, NULL, "a kernel that the store does not know is an error"};
  o[n++] = (cli_option){"--accuracy", CLI_TEXT, &c->accuracy, "A", "strict, or a relative tolerance (default 1e-4)"};
  o[n++] = (cli_option){"--layout", CLI_TEXT, &c->layout, "L", "NCHW, NHWC or NCHWc, for comparison (default: chosen)"};
  o[n++] = (cli_option){"--seed", CLI_INT, &c->seed, "S", "of random inputs (default 0)"};
  o[n++] = (cli_option){"--data", CLI_TEXT, &c->data, "MODEL", "where the constants of a graph's or program's text are"};
  o[n++] = (cli_option){"--json", CLI_FLAG, &c->json, NULL, "one JSON object on standard output"};
  o[n++] = (cli_option){"--engine", CLI_TEXT, &c->engine_name, "E", NULL}; /* jit or interp */
  o[n++] = (cli_option){"--unscheduled", CLI_FLAG, &c->unscheduled, NULL, NULL};
  return n;
}

static void help_rows(FILE *out, int n, const cli_option *o) {
  for (int i = 0; i < n; i++) {
    if (!o[i].about) continue;
    char left[64];
    snprintf(left, sizeof left, "%s%s%s", o[i].name, o[i].arg ? " " : "", o[i].arg ? o[i].arg : "");
    fprintf(out, "  %-24s %s\n", left, o[i].about);
  }
}

static const cli_option *find(const char *name, size_t n, int count, const cli_option *o) {
  for (int i = 0; i < count; i++)
    if (strlen(o[i].name) == n && memcmp(o[i].name, name, n) == 0) return &o[i];
  return NULL;
}

int cli_distance(const char *word, size_t n, const char *name) {
  enum { MOST = 64 };
  int rows[3][MOST + 1] = {{0}};
  size_t m = strlen(name);
  if (n > MOST || m > MOST) return MOST;
  for (size_t k = 0; k <= m; k++) rows[0][k] = (int)k;
  for (size_t i = 1; i <= n; i++) { /* optimal string alignment; three rows of the table in turn */
    int *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
    now[0] = (int)i;
    for (size_t k = 1; k <= m; k++) {
      int d = last[k - 1] + (word[i - 1] != name[k - 1]);
      if (last[k] + 1 < d) d = last[k] + 1;
      if (now[k - 1] + 1 < d) d = now[k - 1] + 1;
      bool turned = i > 1 && k > 1 && word[i - 1] == name[k - 2] && word[i - 2] == name[k - 1];
      if (turned && before[k - 2] + 1 < d) d = before[k - 2] + 1;
      now[k] = d;
    }
  }
  return rows[n % 3][m];
}

/* ", perhaps --budget"; "" when nothing is near. */
static const char *nearest(cli *c, const char *word, size_t n, int nown, const cli_option *own, int nrows, const cli_option *rows) {
  const char *best = NULL;
  int least = n < 5 ? 2 : 3; /* below */
  for (int i = 0; i < nown + nrows; i++) {
    const cli_option *o = i < nown ? &own[i] : &rows[i - nown];
    int d = o->about ? cli_distance(word, n, o->name) : least;
    if (d < least) least = d, best = o->name;
  }
  return best ? ir_format(c->ctx, ", perhaps %s", best) : "";
}

static void set(cli *c, const cli_option *o, const char *value) {
  switch (o->kind) {
  case CLI_FLAG: *(bool *)o->to = true; break;
  case CLI_TEXT: *(const char **)o->to = value; break;
  case CLI_INT: *(int64_t *)o->to = cli_integer(c, o->name, value); break;
  case CLI_REAL:
  case CLI_SECONDS: *(double *)o->to = real(c, o, value); break;
  case CLI_TEXTS: {
    cli_list *l = o->to;
    IR_PUSH(c->ctx, l->items, l->n, value);
    break;
  }
  }
}

static void check_common(cli *c) {
  if (!c->engine_name || strcmp(c->engine_name, "jit") == 0) c->engine = CLI_JIT;
  else if (strcmp(c->engine_name, "interp") == 0) c->engine = CLI_INTERP;
  else ir_fail(c->ctx, TN_EUSAGE, "--engine: '%s' is neither jit nor interp", c->engine_name);
  c->arch = fe_cuda_arch(c->ctx, c->target);
  if (c->arch && c->engine_name) ir_fail(c->ctx, TN_EUSAGE, "--target %s and --engine exclude each other", c->target);
  if (c->arch && (c->plan || c->frozen || c->triple)) ir_fail(c->ctx, TN_EUNSUPPORTED, "--plan, --frozen and --triple are not there for GPUs");
  if (c->arch) c->engine = CLI_CUDA;
  if (c->layout && strcmp(c->layout, "NCHW") && strcmp(c->layout, "NHWC") && strcmp(c->layout, "NCHWc"))
    ir_fail(c->ctx, TN_EUSAGE, "--layout: '%s' is none of NCHW, NHWC, NCHWc", c->layout);
  if (c->accuracy && strcmp(c->accuracy, "strict")) {
    cli_option o = {.name = "--accuracy", .kind = CLI_REAL};
    real(c, &o, c->accuracy);
  }
  if (c->threads > 1024) ir_fail(c->ctx, TN_EUSAGE, "--threads: at most 1024");
}

double cli_accuracy(const cli *c) { return !c->accuracy ? LW_ACCURACY : strcmp(c->accuracy, "strict") == 0 ? 0 : strtod(c->accuracy, NULL); }

bool cli_parse(cli *c, int argc, char **argv, int nown, const cli_option *own, bool common, int min, int max, const char *more) {
  cli_option rows[MAX_COMMON];
  int nrows = 0;
  if (common) nrows = common_options(c, rows);
  else rows[nrows++] = (cli_option){"--json", CLI_FLAG, &c->json, NULL, "one JSON object on standard output"};
  bool only_args = false;
  for (int i = 0; i < argc; i++) {
    const char *a = argv[i];
    if (only_args || a[0] != '-' || !a[1]) {
      IR_PUSH(c->ctx, c->args, c->nargs, a);
      continue;
    }
    if (strcmp(a, "--") == 0) {
      only_args = true;
      continue;
    }
    if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
      fprintf(c->out, "tenon %s %s\n\n  %s\n\n", c->verb->name, c->verb->form, c->verb->about);
      help_rows(c->out, nown, own);
      if (common) fputs("\nWith every model:\n", c->out);
      help_rows(c->out, nrows, rows);
      if (more) fprintf(c->out, "\n%s", more);
      return false;
    }
    const char *eq = a[1] == '-' ? strchr(a, '=') : NULL;
    size_t n = eq ? (size_t)(eq - a) : strlen(a);
    const cli_option *o = find(a, n, nown, own);
    if (!o) o = find(a, n, nrows, rows);
    if (!o) ir_fail(c->ctx, TN_EUSAGE, "tenon %s has no option '%.*s'%s (tenon %s --help)", c->verb->name, (int)n, a, nearest(c, a, n, nown, own, nrows, rows), c->verb->name);
    const char *value = eq ? eq + 1 : NULL;
    if (o->kind == CLI_FLAG) {
      if (eq) ir_fail(c->ctx, TN_EUSAGE, "%s takes no value", o->name);
    } else if (!eq) {
      if (i + 1 >= argc) ir_fail(c->ctx, TN_EUSAGE, "%s needs a value: %s", o->name, o->arg);
      value = argv[++i];
    }
    set(c, o, value);
  }
  if (c->nargs < min || (max >= 0 && c->nargs > max))
    ir_fail(c->ctx, TN_EUSAGE, "%s: tenon %s %s", c->nargs < min ? "an argument is missing" : "too many arguments", c->verb->name, c->verb->form);
  if (common) check_common(c);
  return true;
}
