/* cli.h — the parts that the verbs of the command line tool share.
 *
 *   argv ── cli_parse ── cli_load: model → graph ── cli_lower: → program ── cli_start: → code
 *                                                                        └─ interpreter
 *
 * A verb is a function that describes its options, parses, and works; it throws (ir_fail) with the
 * status that becomes the exit code. Answers go to standard output, as text or (--json) as one object;
 * everything else to standard error.
 */
#ifndef FE_CLI_H
#define FE_CLI_H
#include "frontend/cuda.h"
#include "frontend/import.h"
#include "frontend/inputs.h"
#include "lower/lower.h"
#include "lower/problem.h"
#include "lower/sizes.h"
#include "runtime/module.h"
#include "runtime/threads.h"
#include "runtime/tpu_build.h"
#include <stdio.h>

/* ---- options ---- */

typedef enum cli_kind {
  CLI_FLAG,    /* bool *, no value */
  CLI_TEXT,    /* const char ** */
  CLI_INT,     /* int64_t *, >= 0 */
  CLI_REAL,    /* double *, >= 0 */
  CLI_SECONDS, /* double *: "60", "60s", "500ms", "2m" */
  CLI_TEXTS    /* cli_list *: may be given several times */
} cli_kind;

typedef struct cli_list {
  int n;
  const char **items;
} cli_list;

typedef struct cli_option {
  const char *name; /* "--dim"; "-o" */
  cli_kind kind;
  void *to;
  const char *arg;   /* of the value, for help: "NAME=N" */
  const char *about;
} cli_option;

typedef enum cli_engine { CLI_JIT, CLI_INTERP, CLI_CUDA } cli_engine;

/* One call of the tool. */
typedef struct cli {
  tn_ctx *ctx;
  const struct cli_verb *verb;
  int nargs;          /* what is no option, behind the verb */
  const char **args;
  FILE *out;
  bool answered;      /* the JSON object is out: an error adds none */
  const char *(*notes)(void *user); /* lines that the library logged so far */
  void *notes_user;
  /* options that all verbs with a model share */
  const char *target; /* --target of verbs that run on the CPU or a GPU, see CLI_TARGET */
  const char *arch;   /* of a GPU; "": what there is */
  cli_list dims;      /* NAME=N, NAME=1,8,32, NAME=1..32 */
  cli_list at;        /* NAME=N: sizes that a program of several is run at */
  const char *cpu, *triple, *db, *plan, *accuracy, *layout, *data, *engine_name;
  int64_t threads, seed;
  bool frozen, json, unscheduled;
  const char *cuts;   /* groups to cut, hashes apart by blanks, "" none; null: those that plan or store say */
  bool trust;         /* winners are used whatever whole runs said of them */
  cli_engine engine;
} cli;

#define CLI_TARGET(c) {"--target", CLI_TEXT, &(c)->target, "T", "cpu (default), cuda or cuda:ARCH: on the first GPU"}

typedef struct cli_verb {
  const char *name, *form, *about; /* form: "MODEL -o model.o [options]" */
  void (*run)(cli *c, int argc, char **argv);
} cli_verb;
extern const cli_verb cli_verbs[]; /* ended by a null name */

/* Takes argv apart: `own` options first, then the common ones (`common`: those are understood at
 * all). min to max arguments that are no options; max -1: any number. Returns false when it
 * printed the help text instead. Throws TN_EUSAGE. `more`: text for the end of the help; may be null. */
bool cli_parse(cli *c, int argc, char **argv, int nown, const cli_option *own, bool common, int min, int max, const char *more);
/* Letters by which the n of `word` differ from a name: changed, missing, too many, or exchanged with the next. For
 * "did you mean". */
int cli_distance(const char *word, size_t n, const char *name);
/* --accuracy as in lw_options. */
double cli_accuracy(const cli *c);
/* NAME=VALUE; throws TN_EUSAGE naming the option. */
void cli_pair(cli *c, const char *option, const char *text, const char **name, const char **value);
int64_t cli_integer(cli *c, const char *option, const char *text);

/* ---- models ---- */

typedef struct cli_pass { /* what a pass did, for --json, explain and view */
  const char *name;
  double seconds;
  int nodes;
  const char *text; /* of the graph afterwards; null unless asked for */
} cli_pass;

typedef struct cli_model {
  const char *path;
  const fe_onnx *onnx;     /* null for a text */
  ir_graph *graph;         /* null for a program's text */
  int nin, nout;
  const char **in_name, **out_name; /* as the model names them, before the passes */
  const fe_onnx_type **in_type;     /* declared types by input; null for a text */
  const fe_onnx_type **out_type;
  int ndims;
  const char **dims;       /* names of the symbolic dimensions of the inputs */
  fe_array *in;            /* data null until given or drawn */
  int64_t *at;             /* sizes that it is run at, for a program of several; else null */
  ir_slot *in_face, *out_face; /* inputs and outputs at these sizes */
  ir_program *program;
  const cg_target *target;
  rt_module *module;       /* of the JIT engine */
  fe_cuda *cuda;           /* of the GPU's */
  rt_pool *pool;
  void **out;              /* memory of the outputs, 64-byte aligned */
  int64_t **out_dims;      /* after a run */
  int npasses;
  cli_pass *passes;
  bool keep_texts;         /* set before cli_lower: passes carry the graph's text */
  lw_layout_choice layout; /* that it was lowered in */
  const char *cuts;        /* groups that were cut, hashes apart by blanks; may be null */
  int ngroups;             /* that might be */
  lw_group *groups;
  const struct at_key *layout_key, *whole_key, *cut_key; /* where its layout is looked for, whether winners are a gain, and cuts; null: nowhere */
  struct at_lookup *lookup; /* where schedules come from; null: the defaults */
  bool kernel;             /* made of a specification, not read */
  int copies;              /* a kernel of cold operands is there so many times; else 1 */
  double import_s, lower_s, compile_s;
} cli_model;

/* Whether s names a kernel ("gemm:...", "conv:..."), and its graph, with *count copies of it. */
bool cli_is_kernel(const char *s);
ir_graph *cli_kernel_graph(cli *c, const char *text, int *count);

/* Reads a model: ONNX, or the text of a graph or program when it begins so; or makes a kernel's. */
cli_model *cli_load(cli *c, const char *path);
/* Inputs from NAME=FILE pairs; binds dimensions. */
void cli_feed(cli *c, cli_model *m, const cli_list *inputs);
/* More outputs: the values of these names. */
void cli_fetch(cli *c, cli_model *m, const cli_list *names);
/* --dim sizes, one each, and inputs that decide shapes, are bound. Throws TN_EUSAGE naming the missing ones. */
void cli_bind(cli *c, cli_model *m);
/* The same, or where --dim gives several sizes these (c->dims.n of them), and the graph stays open; null: it is bound. */
const lw_dim *cli_bind_sizes(cli *c, cli_model *m);
/* Sizes that a program of several is run at, by --at; inputs and outputs at these. */
void cli_settle_sizes(cli *c, cli_model *m);
/* Graph to a program of the systolic machine; m->program is the same arithmetic for the CPU. Null options: the
 * precision that suits the machine. */
rt_tpu_build cli_lower_tpu(cli *c, cli_model *m, const tpu_machine *machine, const rt_tpu_options *o);
/* tenon tune --target tpu:NAME: cli_tune_tpu.c */
typedef struct cli_tpu_tuning {
  const char *machine, *precision; /* precision may be null */
  int64_t trials;
  double budget_s;
  const volatile int *stop;
} cli_tpu_tuning;
void cli_tune_tpu(cli *c, const cli_tpu_tuning *how);
/* tenon tune --target cuda[:ARCH]: cli_tune_cuda.c */
typedef struct cli_cuda_tuning {
  const char *arch; /* "": what device 0 is */
  int64_t trials;
  double budget_s, timeout_s; /* timeout: of a single trial */
  bool candidates, compile;   /* only lists them, and compiles them into the store: no GPU is needed */
  const volatile int *stop;
} cli_cuda_tuning;
void cli_tune_cuda(cli *c, const cli_cuda_tuning *how);
/* Graph to program; --dim sizes are bound first. Throws TN_EUSAGE naming the missing ones. */
void cli_lower(cli *c, cli_model *m);
/* Throws TN_EUSAGE for a program of several sizes. */
void cli_need_one_size(cli *c, const cli_model *m);
/* Inputs that were not given become random; outputs get memory. */
void cli_fill(cli *c, cli_model *m);
void cli_save_inputs(cli *c, cli_model *m, const char *dir);
/* As lw_options.cut, with the model as user: notes the group. */
bool cli_wants_cut(void *user, tn_ctx *ctx, const lw_group *group);
/* --threads, or as many as there are CPUs. */
int cli_thread_count(const cli *c);
/* Code and threads, or nothing for the interpreter; the threads alone. */
void cli_start(cli *c, cli_model *m);
void cli_start_threads(cli *c, cli_model *m);
/* One run by the engine. Throws when it fails. */
void cli_run_once(cli *c, cli_model *m);
/* So many timed runs after a warm one. */
rt_profile *cli_profile_run(cli *c, cli_model *m, int runs);
void cli_stop(cli *c, cli_model *m);

/* The model as an object file, compiled, linked and loaded (cli_aot.c). Memory is that of the
 * model; returns what P_run returns. */
typedef struct cli_object cli_object;
cli_object *cli_object_load(cli *c, cli_model *m);
int cli_object_run(cli_object *o, const void *const in[], void *const out[], const int64_t dims[], void *state);

const ir_slot *cli_in_slot(const cli_model *m, int k);
const ir_slot *cli_out_slot(const cli_model *m, int k);
int64_t cli_elements(const ir_slot *s);
/* DIR/NAME.npy with everything outside [A-Za-z0-9._-] as '_'. */
const char *cli_npy_path(cli *c, const char *dir, const char *name);
void cli_make_folder(cli *c, const char *dir);
/* Seconds that a run of the program may take on one core of its target, roughly; *flops: its operations. */
double cli_estimate(cli *c, const cli_model *m, double *flops);
/* "12.3 MB" */
const char *cli_bytes(cli *c, double bytes);
/* "1.23 ms" */
const char *cli_time(cli *c, double seconds);

/* What explain and view tell about each kernel of the program. */
typedef struct cli_kernel_facts {
  lw_problem problem;
  const char *limit;   /* "compute", or where its operands lie */
  double estimate;     /* seconds of one call, roughly */
  const char *refused; /* steps that the default schedule left out, with reasons, a line each */
  int ncalls, npack;   /* in the run section, in the pack section */
  int *calls;          /* instruction numbers */
} cli_kernel_facts;
cli_kernel_facts *cli_facts(cli *c, const cli_model *m);

/* Schedules from --plan or --db for a lowering; what --frozen asks for afterwards; a plan of what came
 * out. cli_tune.c */
void cli_use_schedules(cli *c, cli_model *m, lw_options *o);
void cli_check_frozen(cli *c, const cli_model *m);
void cli_write_plan(cli *c, const cli_model *m, const char *path);

/* ---- JSON ---- */

typedef struct cli_json {
  ir_text text;
  bool comma;
} cli_json;
void cj_begin(cli_json *j, tn_ctx *ctx);
void cj_open(cli_json *j, const char *key, char bracket); /* '{' or '['; key null inside a list */
void cj_close(cli_json *j, char bracket);                 /* '}' or ']' */
void cj_text(cli_json *j, const char *key, const char *v); /* null becomes null */
void cj_int(cli_json *j, const char *key, int64_t v);
void cj_real(cli_json *j, const char *key, double v);      /* not finite becomes null */
void cj_bool(cli_json *j, const char *key, bool v);
void cj_dims(cli_json *j, const char *key, int rank, const int64_t *dims);
/* Closes and writes the object. */
void cj_end(cli_json *j, cli *c);
/* Quoted and escaped. */
void cj_quote(ir_text *t, const char *s);

/* ---- verbs ---- */

void cli_check(cli *c, int argc, char **argv);
void cli_compile(cli *c, int argc, char **argv);
void cli_run(cli *c, int argc, char **argv);
void cli_verify(cli *c, int argc, char **argv);
void cli_bench(cli *c, int argc, char **argv);
void cli_profile(cli *c, int argc, char **argv);
void cli_tune(cli *c, int argc, char **argv);
void cli_db(cli *c, int argc, char **argv);
void cli_explain(cli *c, int argc, char **argv);
void cli_view(cli *c, int argc, char **argv);
void cli_report(cli *c, int argc, char **argv);
void cli_simulate(cli *c, int argc, char **argv);

/* Graph to a program for a GPU, in the layout asked for, else the one that won (of one size), else NHWC. cli_cuda.c */
void cli_lower_cuda(cli *c, cli_model *m, const cu_target *t);
/* Outputs of the program get the model's names again, after the passes. */
void cli_name_outputs(cli *c, cli_model *m);
/* cli_cuda.c: explain --target cuda:ARCH. `code`: the CUDA C of each kernel, too. */
void cli_explain_cuda(cli *c, cli_model *m, const char *arch, const char *only, bool code, bool emulate);
#endif
