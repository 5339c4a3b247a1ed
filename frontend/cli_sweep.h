/* cli_sweep.h — a sweep split over processes, on one machine or several (built with TENON_MPI=ON and started
 * by mpirun; else there is one process, and all of this is nothing).
 *
 *   rank 0 ── the store ──────────────────────────────────┬── merged ──> the store
 *   rank r ── the store, read only ── its own: FILE.rank r ─┘
 *
 * What a rank found is in a file of its own until rank 0 has it, so a sweep that is killed loses nothing:
 * started again it goes on, and the files are merged at its end. */
#ifndef FE_CLI_SWEEP_H
#define FE_CLI_SWEEP_H
#include "autotune/store.h"

typedef struct cli_sweep {
  int rank, ranks;
  int next; /* counts what was shared out */
} cli_sweep;

cli_sweep cli_sweep_begin(void);
/* Whether the next thing of the list is this process's; all call it for all of them. */
static inline bool cli_sweep_mine(cli_sweep *s) { return s->next++ % s->ranks == s->rank; }
/* The store to tune into: `db` as --db has it. Null with "none". */
at_store *cli_sweep_store(tn_ctx *ctx, const cli_sweep *s, const char *db);
/* Closes it; rank 0 has all rows then. Returns how many came from other ranks. All ranks call it. */
int64_t cli_sweep_end(tn_ctx *ctx, const cli_sweep *s, at_store *store, const char *db);
#endif
