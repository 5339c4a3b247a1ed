/* cli_whole.h — the last word on a tuned model: whole runs. */
#ifndef FE_CLI_WHOLE_H
#define FE_CLI_WHOLE_H
#include "autotune/store.h"
#include "frontend/cli.h"

typedef struct cli_verdict {
  bool known;                /* false: it could not be timed */
  double untuned_s, tuned_s; /* a run on one thread */
  double change, error;      /* tuned over untuned - 1, the mean over pairs of processes; its standard error */
  bool kept;                 /* the winners are used: they are faster, by more than the error */
} cli_verdict;

/* Times the model at `path` with and without its winners in fresh processes, some pairs of them until `deadline` (rt_now;
 * 0: none) at most, but one; keeps the verdict in the store (may be null), which compiles follow. */
cli_verdict cli_judge_model(const cli *c, at_store *store, const char *path, double deadline);
#endif
