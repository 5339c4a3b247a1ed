/* Every allocation of a model's way to a program fails once: an error or success each time, never a
 * crash, and all memory comes back. Pads of varying size move the places where the arena needs
 * a new block, so that different allocations are the ones that fail. */
#include "codegen/target.h"
#include "frontend/import.h"
#include "lower/lower.h"
#include "tests/reader_help.h"

typedef struct job {
  blob model;
  size_t pad;
  bool scheduled;
} job;

static void whole_way(tn_ctx *ctx, void *arg) {
  job *j = arg;
  ir_alloc(ctx, j->pad);
  ir_graph *g = fe_import_model(ctx, fe_onnx_parse(ctx, j->model.data, j->model.n, "small.onnx", NULL), NULL);
  lw_bind_dims(ctx, g, 3, (const char *const[]){"N", "batch", "tokens"}, (const int64_t[]){1, 1, 3});
  lw_options o = {.target = j->scheduled ? cg_target_find(ctx, "x86-64-v3", "x86_64-unknown-linux-gnu") : NULL, .unscheduled = !j->scheduled};
  ir_program *p = lw_compile(ctx, g, &o);
  ir_program_print(ctx, p);
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_bug(ctx, "%s", wrong);
}

static long live, turn, fail_at;
static bool all_after;
static void *counted(void *user, size_t bytes, void *old) {
  if (!bytes) {
    live -= old != NULL;
    free(old);
    return NULL;
  }
  if (fail_at && (++turn == fail_at || (all_after && turn > fail_at))) return NULL;
  live += old == NULL;
  return realloc(old, bytes);
}

/* Small blocks would be better still; the arena takes them by powers of two. */
static void starve_model(const char *path) {
  long cases = 0, worst = 0;
  for (int scheduled = 0; scheduled < 2; scheduled++)
    for (size_t pad = 16; pad < 16 << 10; pad += 1531)
      for (int after = 0; after < 2; after++)
        for (fail_at = 1;; fail_at++) {
          job j = {slurp(path), pad, scheduled};
          turn = 0;
          all_after = after;
          tn_ctx *ctx = tn_ctx_new(&(tn_config){.alloc = counted});
          tn_status s = ctx ? ir_protect(ctx, whole_way, &j) : TN_ERESOURCE;
          cr_assert(s == TN_OK || s == TN_ERESOURCE, "allocation %ld of %s: status %d: %s", fail_at, path, s, tn_error(ctx));
          if (ctx && s != TN_OK) cr_assert(strstr(tn_error(ctx), "out of memory"), "%s", tn_error(ctx));
          tn_ctx_free(ctx);
          free((void *)j.model.data);
          cr_assert_eq(live, 0, "%ld blocks are left", live);
          cases++;
          if (turn < fail_at) break; /* nothing failed any more */
          if (fail_at > worst) worst = fail_at;
        }
  cr_assert_gt(worst, 4);
  fprintf(stderr, "%s: %ld runs, up to %ld allocations\n", path, cases, worst);
}
Test(starve, cnn, .timeout = 300) { starve_model(CORPUS "model/small_cnn.onnx"); }
Test(starve, encoder, .timeout = 300) { starve_model(CORPUS "model/small_encoder.onnx"); }
