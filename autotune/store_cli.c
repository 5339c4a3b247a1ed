/* store_cli.c — `tenon db`: the verbs of the store on the command line. */
#include "autotune/store_cli.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *at_db_usage(void) {
  return
      "usage: tenon db VERB [ARGUMENT]... [--db FILE] [--json]\n"
      "\n"
      "  ls [PATTERN]             tuned kernels: trials, best time, gain over the default\n"
      "  show PATTERN [--top N]   kernel text, winner, the best N configs (10), failures\n"
      "  export [-o FILE]         all rows as text, one JSON object per line\n"
      "  import FILE...           adds what export wrote ('-': standard input)\n"
      "  merge FILE...            adds the rows of other stores; any order, any number of times\n"
      "  verify [--repair]        checks file and rows; --repair deletes damaged rows\n"
      "  gc [--older DAYS] [--keep N] [--objects MB] [--dry-run]\n"
      "                           deletes trials older than DAYS, beyond the N best of a kernel,\n"
      "                           and cached code beyond MB; winners and pins stay\n"
      "  pin                      lists what is pinned\n"
      "  pin PATTERN (--config ID | --schedule FILE) [--policy P] [--note TEXT]\n"
      "                           makes a config the winner, whatever is measured\n"
      "  unpin PATTERN            takes that back\n"
      "  path                     which file is used\n"
      "\n"
      "PATTERN is a part of a kernel's name, a pattern with * and ?, or the first digits of its\n"
      "id (at least 4). The store is --db FILE, else $TENON_DB, else tenon/tenon.db under\n"
      "$XDG_CACHE_HOME or ~/.cache.\n"
      "exit: 0 done, 1 verify found damage, 2 bad usage, 4 bad input, 5 cannot be opened or written\n";
}

/* ---- arguments ---- */

static bool same(const char *a, const char *b) { return !strcmp(a, b); }

static const char *value_of(at_db_call *c, int argc, char **argv, int *i) {
  if (*i + 1 >= argc) ir_fail(c->ctx, TN_EUSAGE, "tenon db: %s needs a value", argv[*i]);
  return argv[++*i];
}

static int64_t number_of(at_db_call *c, int argc, char **argv, int *i, double scale) {
  const char *name = argv[*i], *text = value_of(c, argc, argv, i);
  char *end;
  double v = strtod(text, &end);
  if (end == text || *end || !(v >= 0 && v * scale < 9e15)) ir_fail(c->ctx, TN_EUSAGE, "tenon db: %s %s is no number", name, text);
  return (int64_t)(v * scale);
}

static void parse(at_db_call *c, int argc, char **argv) {
  c->objects = -1;
  c->top = 10;
  c->args = IR_NEW_ARRAY(c->ctx, const char *, argc + 1);
  for (int i = 0; i < argc; i++) {
    const char *a = argv[i];
    if (same(a, "--db")) c->db = value_of(c, argc, argv, &i);
    else if (same(a, "--json")) c->json = true;
    else if (same(a, "--help") || same(a, "-h")) c->help = true;
    else if (same(a, "-o") || same(a, "--output")) c->output = value_of(c, argc, argv, &i);
    else if (same(a, "--top")) c->top = (int)number_of(c, argc, argv, &i, 1);
    else if (same(a, "--older")) c->older_s = number_of(c, argc, argv, &i, 86400);
    else if (same(a, "--keep")) c->keep = (int)number_of(c, argc, argv, &i, 1);
    else if (same(a, "--objects")) c->objects = number_of(c, argc, argv, &i, 1 << 20);
    else if (same(a, "--dry-run")) c->dry_run = true;
    else if (same(a, "--repair")) c->repair = true;
    else if (same(a, "--config")) c->config = value_of(c, argc, argv, &i);
    else if (same(a, "--schedule")) c->schedule = value_of(c, argc, argv, &i);
    else if (same(a, "--policy")) c->policy = value_of(c, argc, argv, &i);
    else if (same(a, "--note")) c->note = value_of(c, argc, argv, &i);
    else if (a[0] == '-' && a[1]) ir_fail(c->ctx, TN_EUSAGE, "tenon db: unknown option %s", a);
    else c->args[c->nargs++] = a;
  }
}

static void need(at_db_call *c, int least, int most, const char *what) {
  if (c->nargs < least || c->nargs > most) ir_fail(c->ctx, TN_EUSAGE, "tenon db %s: expected %s", c->verb, what);
}

/* ---- files ---- */

static void close_file(void *f) { fclose(f); }

static FILE *open_for(at_db_call *c, const char *path, const char *mode) {
  FILE *f = fopen(path, mode);
  if (!f) ir_fail(c->ctx, TN_ERESOURCE, "%s: %s", path, strerror(errno));
  ir_defer(c->ctx, close_file, f);
  return f;
}

static void close_now(at_db_call *c, FILE *f) {
  ir_undefer(c->ctx, close_file, f);
  if (fclose(f)) ir_fail(c->ctx, TN_ERESOURCE, "%s: %s", c->output ? c->output : "output", strerror(errno));
}

static const char *read_text(at_db_call *c, const char *path) {
  FILE *f = strcmp(path, "-") ? open_for(c, path, "rb") : stdin;
  ir_text t = {.ctx = c->ctx};
  char buffer[4096];
  size_t n;
  while ((n = fread(buffer, 1, sizeof buffer, f)) > 0) {
    ir_put_bytes(&t, buffer, n);
    if (t.n > (1 << 20)) ir_fail(c->ctx, TN_EINPUT, "%s: too long for a schedule", path);
  }
  if (f != stdin) close_now(c, f);
  return ir_text_str(&t);
}

/* ---- small verbs ---- */

static void path_verb(at_db_call *c) {
  need(c, 0, 0, "no argument");
  const char *path = c->db ? c->db : at_store_default_path(c->ctx);
  if (c->json) {
    fputs("{\"path\":", c->out);
    if (path) at_json_text(c->out, path);
    else fputs("null", c->out);
    fputs("}\n", c->out);
  } else {
    fprintf(c->out, "%s\n", path ? path : "none");
  }
}

static void put_tally(at_db_call *c, const char *verb, const at_tally *t) {
  if (c->json)
    fprintf(c->out, "{\"read\":%lld,\"added\":%lld,\"damaged\":%lld}\n", (long long)t->read, (long long)t->added,
            (long long)t->damaged);
  else
    fprintf(c->out, "%s: %lld rows read, %lld new or updated, %lld damaged and skipped\n", verb, (long long)t->read,
            (long long)t->added, (long long)t->damaged);
}

static void add(at_tally *to, at_tally t) {
  to->read += t.read;
  to->added += t.added;
  to->damaged += t.damaged;
}

static void export_verb(at_db_call *c) {
  need(c, 0, 0, "no argument");
  if (!c->output || !strcmp(c->output, "-")) {
    at_store_export(c->store, c->out);
    return;
  }
  FILE *f = open_for(c, c->output, "wb");
  at_tally t = at_store_export(c->store, f);
  close_now(c, f);
  t.added = t.read - t.damaged;
  if (c->json) put_tally(c, "export", &t);
  else fprintf(c->out, "export: %lld rows written to %s\n", (long long)t.added, c->output);
}

static void import_verb(at_db_call *c) {
  need(c, 1, 1 << 20, "the files to import");
  at_tally t = {0};
  for (int i = 0; i < c->nargs; i++) {
    bool standard = !strcmp(c->args[i], "-");
    FILE *f = standard ? stdin : open_for(c, c->args[i], "rb");
    add(&t, at_store_import(c->store, f, standard ? "standard input" : c->args[i]));
    if (!standard) close_now(c, f);
  }
  put_tally(c, "import", &t);
}

static void merge_verb(at_db_call *c) {
  need(c, 1, 1 << 20, "the stores to merge");
  at_tally t = {0};
  for (int i = 0; i < c->nargs; i++) add(&t, at_store_merge(c->store, c->args[i]));
  put_tally(c, "merge", &t);
}

static void say_problem(void *user, const char *line) {
  at_db_call *c = user;
  if (c->json) {
    fputs(c->problems ? "," : "", c->out);
    at_json_text(c->out, line);
  } else {
    fprintf(c->out, "%s\n", line);
  }
  c->problems++;
}

static void verify_verb(at_db_call *c) {
  need(c, 0, 0, "no argument");
  if (c->json) fputs("{\"problems\":[", c->out);
  at_tally t = at_store_verify(c->store, c->repair, say_problem, c);
  bool fixed = c->repair && t.damaged == t.added;
  if (c->json)
    fprintf(c->out, "],\"rows\":%lld,\"damaged\":%lld,\"deleted\":%lld,\"ok\":%s}\n", (long long)t.read,
            (long long)t.damaged, (long long)t.added, t.damaged && !fixed ? "false" : "true");
  else
    fprintf(c->out, "verify: %lld rows, %lld damaged%s\n", (long long)t.read, (long long)t.damaged,
            t.damaged ? fixed ? ", deleted" : "" : "; all is well");
  if (t.damaged && !fixed) {
    fflush(c->out);
    ir_fail(c->ctx, TN_EWRONG, "tuning store %s: %lld problems", at_store_main(c->store)->path, (long long)t.damaged);
  }
}

static void gc_verb(at_db_call *c) {
  need(c, 0, 0, "no argument");
  if (!c->older_s && !c->keep && c->objects < 0)
    ir_fail(c->ctx, TN_EUSAGE, "tenon db gc: say what may go: --older DAYS, --keep N or --objects MB");
  at_gc how = {c->older_s, c->keep, c->objects, c->dry_run};
  at_gc_result r = at_store_gc(c->store, &how);
  if (c->json)
    fprintf(c->out, "{\"trials\":%lld,\"configs\":%lld,\"workloads\":%lld,\"runs\":%lld,\"objects\":%lld,"
            "\"trials_left\":%lld,\"dry_run\":%s}\n", (long long)r.trials, (long long)r.configs, (long long)r.workloads,
            (long long)r.runs, (long long)r.objects, (long long)r.trials_left, c->dry_run ? "true" : "false");
  else
    fprintf(c->out, "gc: %s %lld trials, %lld configs, %lld kernels, %lld runs, %lld cached objects; %lld trials left\n",
            c->dry_run ? "would delete" : "deleted", (long long)r.trials, (long long)r.configs, (long long)r.workloads,
            (long long)r.runs, (long long)r.objects, (long long)r.trials_left);
}

/* ---- pins ---- */

static const at_db_task *one_task(at_db_call *c) {
  int n;
  const at_db_task *t = at_db_find_tasks(c, c->args[0], &n);
  if (n == 0) ir_fail(c->ctx, TN_EUSAGE, "tenon db %s: no kernel matches '%s'", c->verb, c->args[0]);
  if (n > 1) {
    ir_text list = {.ctx = c->ctx};
    for (int i = 0; i < n && i < 10; i++) ir_put(&list, "\n  %.12s  %s  %s", t[i].uid, t[i].name, t[i].policy);
    ir_fail(c->ctx, TN_EUSAGE, "tenon db %s: '%s' matches %d kernels; give one id:%s", c->verb, c->args[0], n,
            ir_text_str(&list));
  }
  return t;
}

static void pin_verb(at_db_call *c) {
  if (c->nargs == 0 && !c->config && !c->schedule) {
    at_db_list_pins(c);
    return;
  }
  need(c, 1, 1, "one kernel");
  if (!c->config == !c->schedule) ir_fail(c->ctx, TN_EUSAGE, "tenon db pin: give --config ID or --schedule FILE");
  const at_db_task *t = one_task(c);
  const char *schedule = c->schedule ? read_text(c, c->schedule) : at_db_find_config(c, c->config);
  at_key key = {t->kernel, t->target, t->policy, t->codegen};
  at_store_pin(c->store, &key, NULL, NULL, schedule, c->note);
  if (c->json) {
    fprintf(c->out, "{\"task\":\"%s\",\"pinned\":true}\n", t->uid);
  } else {
    fprintf(c->out, "pinned for %s %s:\n%s%s", t->name, t->policy, schedule,
            schedule[0] && schedule[strlen(schedule) - 1] == '\n' ? "" : "\n");
  }
}

static void unpin_verb(at_db_call *c) {
  need(c, 1, 1, "one kernel");
  const at_db_task *t = one_task(c);
  at_key key = {t->kernel, t->target, t->policy, t->codegen};
  bool was = at_store_unpin(c->store, &key);
  if (c->json) fprintf(c->out, "{\"task\":\"%s\",\"was_pinned\":%s}\n", t->uid, was ? "true" : "false");
  else fprintf(c->out, was ? "%s is measured again\n" : "%s was not pinned\n", t->name);
}

/* ---- dispatch ---- */

static const struct verb {
  const char *name;
  void (*fn)(at_db_call *c);
  enum { NO_STORE, READS, WRITES } access;
} verbs[] = {
    {"ls", at_db_ls, READS},           {"show", at_db_show, READS},   {"export", export_verb, READS},
    {"import", import_verb, WRITES},   {"merge", merge_verb, WRITES}, {"verify", verify_verb, READS},
    {"gc", gc_verb, WRITES},           {"pin", pin_verb, WRITES},     {"unpin", unpin_verb, WRITES},
    {"path", path_verb, NO_STORE},
};

/* False if there is nothing to answer from yet, which has been said. */
static bool open_store(at_db_call *c, bool writes) {
  const char *path = c->db ? c->db : at_store_default_path(c->ctx);
  if (!path || !strcmp(path, "none")) ir_fail(c->ctx, TN_EUSAGE, "tenon db: there is no store (TENON_DB or --db is 'none', or HOME is not set)");
  struct stat s;
  if (!writes && !c->db && stat(path, &s) && errno == ENOENT) {
    if (c->json) fputs("{}\n", c->out);
    else fprintf(c->out, "nothing tuned yet: %s does not exist (tenon tune makes it)\n", path);
    return false;
  }
  c->store = at_store_open(c->ctx, path, AT_STORE_STRICT | AT_STORE_NOSHARED | (writes ? 0 : AT_STORE_READONLY));
  return true;
}

typedef struct command {
  int argc;
  char **argv;
  FILE *out;
  bool json;
} command;

static void db_main(tn_ctx *ctx, void *arg) {
  const command *cmd = arg;
  at_db_call *c = IR_NEW(ctx, at_db_call);
  c->ctx = ctx;
  c->out = cmd->out;
  c->json = cmd->json;
  parse(c, cmd->argc, cmd->argv);
  if (c->help || c->nargs == 0) {
    if (!c->help) ir_fail(ctx, TN_EUSAGE, "tenon db: which verb?\n%s", at_db_usage());
    fputs(at_db_usage(), c->out);
    return;
  }
  c->verb = c->args[0];
  c->args++;
  c->nargs--;
  const struct verb *v = NULL;
  for (int i = 0; i < IR_COUNT(verbs) && !v; i++)
    if (!strcmp(verbs[i].name, c->verb)) v = &verbs[i];
  if (!v) ir_fail(ctx, TN_EUSAGE, "tenon db: unknown verb '%s'\n%s", c->verb, at_db_usage());
  bool lists_pins = v->fn == pin_verb && !c->nargs && !c->config && !c->schedule;
  bool writes = (v->access == WRITES && !lists_pins) || c->repair;
  if (v->access != NO_STORE && !open_store(c, writes)) return;
  v->fn(c);
  at_store_close(c->store);
}

int at_db_main(tn_ctx *ctx, int argc, char **argv, FILE *out, bool json) {
  command cmd = {argc, argv, out, json};
  return (int)ir_protect(ctx, db_main, &cmd);
}
