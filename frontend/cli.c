/* cli.c — the command line tool: which verb, and what becomes of errors. */
#include "codegen/codegen.h"
#include "frontend/cli.h"
#include "frontend/file.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

const cli_verb cli_verbs[] = {
    {"check", "MODEL [options]", "Lists every problem of a model at once; estimates memory and time.", cli_check},
    {"compile", "MODEL -o model.o [options]", "Ahead of time: an object file, and a C header for it.", cli_compile},
    {"run", "MODEL [--input NAME=FILE.npy]... [--fetch NODE]... [--output-dir DIR] [options]", "Runs a model once.", cli_run},
    {"verify", "MODEL DIR [options]", "Compares with the expected outputs in a folder (input_K and output_K, .pb or .npy).", cli_verify},
    {"bench", "MODEL|KERNEL [--seconds S] [--aot] [options]", "Times a model or a kernel.", cli_bench},
    {"profile", "MODEL [--trace out.json] [options]", "Times every kernel call of a model.", cli_profile},
    {"tune", "MODEL|KERNEL... [--list FILE] [--budget 60s] [--trials N] [--seed S] [options]", "Looks for better schedules and stores them.", cli_tune},
    {"db", "ls|show|export|import|merge|verify|gc|pin ...", "The tuning store.", cli_db},
    {"explain", "MODEL [options]", "What became of a model: kernels, what was fused, schedules.", cli_explain},
    {"view", "MODEL -o page.html [options]", "The same as one HTML page, with graph, passes and loops.", cli_view},
    {"simulate", "MODEL|TOPOLOGY.csv|PROGRAM --machine NAME [--timing tpu|scalesim] [--csv out.csv] [--no-faults] [options]", "Runs on a simulated systolic machine: cycles, stalls, a timeline.", cli_simulate},
    {"report", "[KERNEL] [--db FILE] -o page.html", "What is in the tuning store, as an HTML page.", cli_report},
    {NULL, NULL, NULL, NULL},
};

static void usage(FILE *out) {
  fputs("tenon: compiles tensor graphs to machine code\n\n  tenon VERB ... ; tenon VERB --help tells more; tenon --version\n\n", out);
  for (const cli_verb *v = cli_verbs; v->name; v++) fprintf(out, "  %-9s %s\n", v->name, v->about);
  fputs("\nMODEL: an ONNX file, or the text of a graph or program (TN_DUMP=after:PASS,... prints such texts:\n"
        "passes ", out);
  for (const lw_pass *p = lw_passes; p->name; p++) fprintf(out, "%s, ", p->name);
  fputs("and program).\nKERNEL: gemm:f32:MxNxK, conv:f32:n1c64h56w56k64r3s3u1p1.\n"
        "Exit codes: 0 done, 1 wrong result, 2 bad usage, 3 unsupported, 4 bad input, 5 resources, 70 internal fault.\n", out);
}

typedef struct invocation {
  cli c;
  int argc;
  char **argv;
} invocation;

/* What the library had to say, kept for explain and view. It outlives no run of the tool. */
typedef struct notes {
  char *text;
  size_t n;
} notes;

static void run_verb(tn_ctx *ctx, void *arg) {
  (void)ctx;
  invocation *i = arg;
  i->c.verb->run(&i->c, i->argc, i->argv);
}

/* Schedule steps that were left out are told by explain; TN_LOG=1 shows them at once. */
static void say(void *user, const char *line) {
  notes *k = user;
  size_t n = strlen(line);
  char *grown = realloc(k->text, k->n + n + 2);
  if (grown) {
    k->text = grown;
    memcpy(grown + k->n, line, n);
    grown[k->n += n] = '\n';
    grown[++k->n] = 0;
  }
  if (!strstr(line, "default schedule leaves out") || getenv("TN_LOG")) fprintf(stderr, "tenon: %s\n", line);
}

static const char *notes_of(void *user) {
  const notes *k = user;
  return k->text ? k->text : "";
}

/* Without the arena: memory may be what ran out. */
static void put_quoted(FILE *f, const char *s) {
  fputc('"', f);
  for (; *s; s++) {
    unsigned char ch = (unsigned char)*s;
    if (ch == '"' || ch == '\\') fprintf(f, "\\%c", ch);
    else if (ch < 32) fprintf(f, "\\u%04x", ch);
    else fputc(ch, f);
  }
  fputc('"', f);
}

static void on_end(int sig) {
  fe_leave_nothing();
  raise(sig); /* the handler is gone */
}

/* An interrupted compile leaves no half of a file. What is ignored, as by nohup, stays so. */
static void tidy_when_interrupted(void) {
  static const int sigs[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction end = {.sa_handler = on_end, .sa_flags = SA_RESETHAND}, before;
  for (int i = 0; i < IR_COUNT(sigs); i++)
    if (sigaction(sigs[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(sigs[i], &end, NULL);
}

int main(int argc, char **argv) {
  const char *verb = argc > 1 ? argv[1] : NULL;
  if (!verb || strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0 || strcmp(verb, "help") == 0) {
    usage(verb ? stdout : stderr);
    return verb ? TN_OK : TN_EUSAGE;
  }
  invocation i = {.argc = argc - 2, .argv = argv + 2};
  for (const cli_verb *v = cli_verbs; v->name; v++)
    if (strcmp(v->name, verb) == 0) i.c.verb = v;
  bool version = strcmp(verb, "--version") == 0;
  if (!i.c.verb && !version) {
    const cli_verb *near = NULL;
    for (const cli_verb *v = cli_verbs; v->name && !near; v++)
      if (cli_distance(verb, strlen(verb), v->name) == 1) near = v;
    fprintf(stderr, "tenon: error: unknown verb '%s'%s%s (tenon --help lists them)\n", verb, near ? ", perhaps " : "", near ? near->name : "");
    return TN_EUSAGE;
  }
  tidy_when_interrupted();
  notes log = {0};
  tn_config config = {.log = say, .user = &log};
  tn_ctx *ctx = i.c.ctx = tn_ctx_new(&config);
  if (!ctx) {
    fputs("tenon: error: out of memory\n", stderr);
    return TN_ERESOURCE;
  }
  if (version) {
    printf("tenon %s, code generator %d, LLVM %s\n", TENON_VERSION, CG_VERSION, cg_llvm_version(ctx));
    tn_ctx_free(ctx);
    return TN_OK;
  }
  i.c.out = stdout;
  i.c.notes = notes_of;
  i.c.notes_user = &log;
  int status = ir_protect(ctx, run_verb, &i);
  if (status) {
    if (i.c.json && !i.c.answered) {
      fputs("{\"error\": ", stdout);
      put_quoted(stdout, ir_error(ctx));
      fprintf(stdout, ", \"status\": %d}\n", status);
    }
    fprintf(stderr, "tenon: error: %s\n", ir_error(ctx));
  }
  if (fflush(stdout) != 0 || ferror(stdout)) {
    fputs("tenon: error: standard output cannot be written\n", stderr);
    if (!status) status = TN_ERESOURCE;
  }
  tn_ctx_free(ctx);
  free(log.text);
  return status;
}
