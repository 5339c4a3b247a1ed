/* Every allocation of a small session with the C API fails once: each time there is an error or a
 * right result, never a crash, and all memory comes back. LLVM's own allocations are not counted. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct memory {
  atomic_long turn, live;
  long fail_at;  /* allocation number fail_at fails; 0: none */
  int all_after; /* and every one after it */
  int jobs;      /* threads that compile */
} memory;

static void *alloc(void *user, size_t bytes, void *old) {
  memory *m = user;
  if (!bytes) {
    if (old) m->live--;
    free(old);
    return NULL;
  }
  long turn = ++m->turn;
  if (m->fail_at && (turn == m->fail_at || (m->all_after && turn > m->fail_at))) return NULL;
  void *p = realloc(old, bytes);
  if (p && !old) m->live++;
  return p;
}

static char weights[256], object[256];
static void setup(void) {
  setenv("TENON_DB", "none", 1); /* SQLite has allocations of its own */
  const char *tmp = getenv("TMPDIR");
  snprintf(weights, sizeof weights, "%s/tenon-alloc-%ld.safetensors", tmp && *tmp ? tmp : "/tmp", (long)getpid());
  snprintf(object, sizeof object, "%s/tenon-alloc-%ld.o", tmp && *tmp ? tmp : "/tmp", (long)getpid());
}
static void teardown(void) {
  char header[256];
  unlink(weights);
  unlink(object);
  snprintf(header, sizeof header, "%.*s.h", (int)strlen(object) - 2, object);
  unlink(header);
}
TestSuite(alloc, .init = setup, .fini = teardown);

/* Builds, loads, compiles, runs, changes, saves. Returns whether everything went well; what went
 * wrong must have a message. `shift` moves the places where the arena needs memory. */
static int session(memory *m, int shift) {
  int ok = 0;
  tn_tensor *in, *a, *out, *dl_of;
  tn_module *module = NULL;
  struct DLManagedTensor *dl = NULL;
  float x[32], y[6], y2[6];
  for (int i = 0; i < 32; i++) x[i] = (float)i / 16 - 1;
  tn_ctx *ctx = tn_ctx_new(&(tn_config){.user = m, .alloc = alloc});
  if (!ctx) return 0;
  tn_graph *g = tn_graph_new(ctx, "alloc");
  if (!g) goto failed;
  static const char pad[8 << 10];
  if (shift && !tn_const(g, "pad", TN_U8, 1, (int64_t[]){shift * 509}, pad)) goto failed;
  in = tn_input(g, "x", TN_F32, 4, (int64_t[]){2, 1, 4, 4});
  a = tn_relu(g, tn_conv2d(g, in, 4, 3, 1, 1, "conv"));
  out = tn_softmax(g, tn_dense(g, tn_flatten(g, tn_max_pool(g, a, 2, 2, 0), 1), 3, "fc"), -1);
  if (tn_output(g, "y", out)) goto failed;
  dl_of = tn_find(g, "y");
  if (!dl_of) goto failed;
  if (tn_load_safetensors(g, weights, NULL, NULL, NULL)) goto failed;
  module = tn_compile(g, &(tn_options){.jobs = m->jobs}, 1, &a);
  if (!module) goto failed;
  if (tn_run(module, 2, (tn_binding[]){{in, x}, {out, y}})) goto run_failed;
  if (tn_module_set(module, tn_find(g, "fc.bias") ? tn_find(g, "fc.bias") : out, (float[]){9, 0, 0})) goto run_failed;
  if (tn_run(module, 2, (tn_binding[]){{in, x}, {out, y2}})) goto run_failed;
  if (y2[0] < 0.9f || y2[0] <= y[0]) cr_assert_fail("wrong result");
  dl = tn_alloc_dlpack(ctx, out);
  if (!dl) goto failed;
  if (tn_save_object(g, NULL, object, NULL, "alloc", TN_WEIGHTS_EMBED)) goto failed;
  ok = 1;
failed:
  if (!ok) cr_assert(*tn_error(ctx), "no message");
run_failed:
  if (!ok && module) cr_assert(*tn_error(ctx) || *tn_run_error(), "no message");
  if (dl) { /* the deleter stands behind the tensor: dlpack.h's layout */
    struct { void *data; int32_t device[2]; int32_t ndim; uint32_t dtype; int64_t *shape, *strides; uint64_t offset; void *manager; void (*deleter)(struct DLManagedTensor *); } *t = (void *)dl;
    t->deleter(dl);
  }
  tn_ctx_free(ctx);
  return ok;
}

static void save_weights(void) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, "weights");
  tn_tensor *in = tn_input(g, "x", TN_F32, 4, (int64_t[]){2, 1, 4, 4});
  tn_dense(g, tn_flatten(g, tn_max_pool(g, tn_conv2d(g, in, 4, 3, 1, 1, "conv"), 2, 2, 0), 1), 3, "fc");
  cr_assert_eq(tn_save_safetensors(g, weights), TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

static void all_of_them(int all_after, int jobs, int shifts) {
  save_weights();
  for (int shift = 0; shift < shifts; shift++) {
    memory first = {.jobs = jobs};
    cr_assert_eq(session(&first, shift), 1, "without a failure");
    cr_assert_eq((long)first.live, 0, "%ld blocks leaked without a failure", (long)first.live);
    long n = first.turn;
    cr_assert(n > 5);
    int failures = 0;
    for (long i = 1; i <= n; i++) {
      memory m = {.fail_at = i, .all_after = all_after, .jobs = jobs};
      failures += !session(&m, shift);
      cr_assert_eq((long)m.live, 0, "allocation %ld of %ld failed: %ld blocks leaked", i, n, (long)m.live);
    }
    /* which one is the i-th, and how many there are, varies with the threads */
    long spared = jobs > 1 ? 3 + n / 8 : 3;
    cr_assert(failures >= n - spared, "%d failures of %ld allocations", failures, n);
  }
}

Test(alloc, one_fails) { all_of_them(0, 1, 5); }
Test(alloc, all_fail_from_there) { all_of_them(1, 1, 2); }
Test(alloc, threads_that_compile) { all_of_them(0, 3, 2); }
