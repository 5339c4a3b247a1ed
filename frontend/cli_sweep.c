/* cli_sweep.c — see cli_sweep.h. */
#include "frontend/cli_sweep.h"
#ifndef TENON_MPI
cli_sweep cli_sweep_begin(void) { return (cli_sweep){0, 1, 0}; }
at_store *cli_sweep_store(tn_ctx *ctx, const cli_sweep *s, const char *db) {
  (void)s;
  return at_store_open(ctx, db, 0);
}
int64_t cli_sweep_end(tn_ctx *ctx, const cli_sweep *s, at_store *store, const char *db) {
  (void)ctx, (void)s, (void)db;
  at_store_close(store);
  return 0;
}
#else
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

cli_sweep cli_sweep_begin(void) {
  cli_sweep s = {0, 1, 0};
  if (!getenv("OMPI_COMM_WORLD_SIZE") && !getenv("PMI_SIZE")) return s; /* not started by mpirun */
  MPI_Init(NULL, NULL);
  MPI_Comm_rank(MPI_COMM_WORLD, &s.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &s.ranks);
  return s;
}

static const char *own_path(tn_ctx *ctx, const cli_sweep *s, const char *db) {
  const char *path = db && *db ? db : at_store_default_path(ctx);
  return path && strcmp(path, "none") != 0 ? ir_format(ctx, "%s.rank%d", path, s->rank) : NULL;
}

at_store *cli_sweep_store(tn_ctx *ctx, const cli_sweep *s, const char *db) {
  const char *own = s->rank ? own_path(ctx, s, db) : NULL, *path = db && *db ? db : at_store_default_path(ctx);
  if (!own) return at_store_open(ctx, db, 0);
  at_store *store = at_store_open(ctx, own, 0);
  if (access(path, R_OK) == 0) at_store_add_shared(store, path);
  return store;
}

enum { PIECE = 1 << 28 }; /* bytes of a message */

static void send_rows(at_store *store) {
  char *text = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&text, &n);
  if (f) {
    at_store_export(store, f);
    if (fclose(f)) n = 0;
  }
  long long all = (long long)n;
  MPI_Send(&all, 1, MPI_LONG_LONG, 0, 0, MPI_COMM_WORLD);
  for (long long at = 0; at < all; at += PIECE) MPI_Send(text + at, (int)(all - at < PIECE ? all - at : PIECE), MPI_BYTE, 0, 0, MPI_COMM_WORLD);
  free(text);
}

static int64_t take_rows(tn_ctx *ctx, at_store *store, int from) {
  long long all = 0;
  MPI_Recv(&all, 1, MPI_LONG_LONG, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  char *text = malloc((size_t)all + 1);
  if (!text) ir_fail(ctx, TN_ERESOURCE, "out of memory: %lld bytes of rows from rank %d; its file keeps them", all, from);
  for (long long at = 0; at < all; at += PIECE) MPI_Recv(text + at, (int)(all - at < PIECE ? all - at : PIECE), MPI_BYTE, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  FILE *f = all ? fmemopen(text, (size_t)all, "r") : NULL;
  int64_t added = f ? at_store_import(store, f, ir_format(ctx, "rank %d", from)).added : 0;
  if (f) fclose(f);
  free(text);
  return added;
}

int64_t cli_sweep_end(tn_ctx *ctx, const cli_sweep *s, at_store *store, const char *db) {
  int64_t added = 0;
  if (s->ranks > 1 && store) {
    if (s->rank) send_rows(store);
    for (int r = 1; r < s->ranks && !s->rank; r++) added += take_rows(ctx, store, r);
  }
  bool kept = store && !*at_store_trouble(store);
  at_store_close(store);
  int all_kept = kept;
  if (s->ranks > 1) MPI_Bcast(&all_kept, 1, MPI_INT, 0, MPI_COMM_WORLD); /* rank 0 has them in its file */
  const char *own = s->rank && all_kept ? own_path(ctx, s, db) : NULL;
  if (own) unlink(own);
  int started = 0;
  MPI_Initialized(&started);
  if (started) MPI_Finalize();
  return added;
}
#endif
