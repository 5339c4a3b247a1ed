/* cli_whole.h — the last word on a tuned model: whole runs. */
#ifndef FE_CLI_WHOLE_H
#define FE_CLI_WHOLE_H
#include "autotune/cuda.h"
#include "frontend/cli.h"

/* Most ways to run a model that are compared: its defaults, its winners in each layout, and with groups cut. */
enum { CLI_MOST_WAYS = 5 };

typedef struct cli_way { /* the winners in one layout, or the usual one with groups cut */
  const char *layout;    /* null: the one that compiles would choose */
  const char *cuts;      /* hashes of groups, apart by blanks; null: none */
  double change, error;  /* a run's time over that of the defaults - 1, the mean over rounds of processes; its standard error */
} cli_way;

typedef struct cli_verdict {
  bool known;                /* false: it could not be timed */
  double untuned_s, tuned_s; /* a run; tuned: in the layout chosen */
  int n, chosen;             /* ways; the one to take */
  cli_way way[CLI_MOST_WAYS];
  bool kept;                 /* the winners are used: they are faster, by more than two errors */
} cli_verdict;

typedef struct cli_whole_options {
  int threads;                /* of the runs */
  at_store *store;            /* keeps the verdict, which compiles follow; may be null */
  int nlayouts;               /* to compare; 0: the one that compiles would choose */
  const char *const *layouts; /* the first is the usual one: another is taken only if it is clearly faster */
  bool tried_cuts;            /* whether groups are better cut was looked at: */
  const char *cuts;           /* another way, in the usual layout, with these cut; null: none */
  double deadline;            /* by rt_now: no round begins that would end later, but the first; 0: none */
  void (*progress)(void *user, const char *line); /* after each round; may be null */
  void *user;
} cli_whole_options;

/* Times of kernels, by their at_kernel_hash; NaN: not known. */
typedef struct cli_timed {
  int n;
  const char **hash;
  double *ns;
} cli_timed;
enum { CLI_MOST_CUTS = 8 };
/* Hashes of the largest groups of a model that may be cut; returns how many. */
int cli_cuts_of(tn_ctx *ctx, const cli_model *m, const char *cuts[CLI_MOST_CUTS]);
/* Of n cuts those that by the times of kernels are faster: cut[i] is the program with cut i alone, `whole` the one with
 * none. Hashes, apart by blanks; null: none is. */
const char *cli_choose_cuts(tn_ctx *ctx, const ir_program *whole, int n, const char *const *cuts, const ir_program *const *cut, const cli_timed *t);

/* Times the model at `path` with its defaults and with its winners in fresh processes. */
cli_verdict cli_judge_model(const cli *c, const char *path, const cli_whole_options *o);

/* cli_cuda_layout.c: a model's whole runs on the device, in each layout, with what the store has. */
enum { CLI_CUDA_LAYOUTS = 2 };
extern const char *const cli_cuda_layout[CLI_CUDA_LAYOUTS]; /* the usual one first */
typedef struct cli_cuda_race_options {
  const cu_target *target;
  const at_cuda_stuck *stuck; /* as at_cuda_options */
  int nstuck;
  void (*starts)(void *user, const char *kernel, const char *choice);
  void *user;
} cli_cuda_race_options;
typedef struct cli_cuda_race {
  bool known;          /* false: they could not be compared */
  double ms[CLI_CUDA_LAYOUTS];        /* medians of runs in turn, without copies to and from the host */
  const char *chosen;  /* the usual one, unless the other takes less than 0.99 of its time */
  const char *why;     /* not compared */
} cli_cuda_race;
cli_cuda_race cli_cuda_layouts(const cli *c, const char *path, const cli_cuda_race_options *o);
/* Keeps it in the store, where cli_lower_cuda finds it. */
void cli_cuda_keep_layout(const cli *c, const char *path, at_store *store, const cli_cuda_race_options *o, const cli_cuda_race *r);
#endif
