/* test_tune.c — the tuner: layouts, space, workers that are mistreated, searches that resume, plans.
 * Times never decide here whether something passes. */
#include "autotune/lookup.h"
#include "autotune/operands.h"
#include "autotune/search.h"
#include "lower/schedule.h"
#include "runtime/profile.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char dir[] = "/tmp/tenon-tune-XXXXXX";
static tn_ctx *ctx;
static char said[1 << 14];

static void hear(void *user, const char *line) {
  (void)user;
  size_t n = strlen(said);
  snprintf(said + n, sizeof said - n, "%s\n", line);
}

static void start(void) {
  cr_assert(mkdtemp(dir));
  unsetenv("TENON_DB");
  unsetenv("TENON_DB_SHARED");
  ctx = tn_ctx_new(&(tn_config){.log = hear});
}

static void stop(void) {
  tn_ctx_free(ctx);
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  if (system(command)) perror(command);
}

TestSuite(tune, .init = start, .fini = stop);

/* Bodies run protected: a throw is a failure with its message. */
typedef struct body {
  void (*fn)(void);
} body;
static void run_body(tn_ctx *c, void *arg) {
  (void)c;
  ((body *)arg)->fn();
}
static void ok(void (*fn)(void)) {
  tn_status s = ir_protect(ctx, run_body, &(body){fn});
  cr_assert_eq(s, TN_OK, "%s", ir_error(ctx));
}

static const char gemm_text[] = "kernel gemm(in a: f32[24, 32], const b: f32[32, 48], out c: f32[24, 48]) {\n"
                                "  for m in 0..24 { for n in 0..48 {\n"
                                "    alloc acc: f32[] register\n"
                                "    acc[] = 0.0\n"
                                "    for k in 0..32 { acc[] = fma(a[m, k], b[k, n], acc[]) }\n"
                                "    c[m, n] = max(0.0, acc[])\n"
                                "  } }\n"
                                "}\n";
static const char add_text[] = "kernel add(in a: f32[40, 30], in b: f32[30], out c: f32[40, 30]) {\n"
                               "  for i in 0..40 { for j in 0..30 { c[i, j] = a[i, j] + b[j] } }\n"
                               "}\n";

static const ir_kernel *kernel(const char *text) { return ir_kernel_parse(ctx, text, "test"); }
static const cg_target *target(void) { return cg_target_find(ctx, NULL, NULL); }

/* ---- layouts ---- */

static void layouts(void) {
  static const char *const texts[] = {"", "split 1 4; perm 0 1 3 2", "perm 2 0 1", "pad 0 1 2; split 2 3", "split 1 8; xor 1 0 2",
                                      "split 0 2; split 3 5; perm 4 3 2 1 0"};
  int64_t shape[3] = {4, 6, 10}, at[3];
  for (int t = 0; t < IR_COUNT(texts); t++) {
    const ir_layout *l = ir_layout_parse(ctx, texts[t]);
    ix dims[3], index[3];
    for (int i = 0; i < 3; i++) dims[i] = ix_index(ctx, shape[i]);
    ir_buf *b = ir_buf_new(ctx, "b", TN_F32, 3, dims, l, IR_GLOBAL);
    int64_t elements, bytes = at_layout_bytes(l, 3, shape, 4);
    cr_assert(ix_const_value(ir_buf_elements(ctx, b), &elements));
    cr_assert_eq(bytes, elements * 4, "%s", texts[t]);
    float dense[240], back[240], *packed = ir_alloc(ctx, (size_t)bytes);
    for (int i = 0; i < 240; i++) dense[i] = (float)(i + 1);
    at_pack(ctx, l, 3, shape, 4, dense, packed);
    int i = 0;
    for (at[0] = 0; at[0] < 4; at[0]++)
      for (at[1] = 0; at[1] < 6; at[1]++)
        for (at[2] = 0; at[2] < 10; at[2]++, i++) {
          for (int k = 0; k < 3; k++) index[k] = ix_index(ctx, at[k]);
          int64_t where;
          cr_assert(ix_const_value(ir_buf_offset(ctx, b, index), &where));
          cr_assert_eq(packed[where], dense[i], "%s at %d", texts[t], i);
        }
    at_unpack(ctx, l, 3, shape, 4, packed, back);
    cr_assert_eq(memcmp(dense, back, sizeof dense), 0, "%s", texts[t]);
  }
}
Test(tune, layouts_as_the_ir_has_them) { ok(layouts); }

/* ---- the space ---- */

static void spaces(void) {
  const char *const texts[] = {gemm_text, add_text};
  at_machine m = {3, 100, 32 << 20};
  for (int t = 0; t < 2; t++) {
    const ir_kernel *k = kernel(texts[t]);
    at_space *s = at_space_new(ctx, k, target(), &m, 0, 1, AT_SPACE_POINTS);
    cr_assert(s->n >= 1);
    cr_assert(at_space_find(s, s->standard) >= 0);
    cr_assert_str_eq(s->standard, lw_schedule_canonical(ctx, lw_default_schedule(ctx, k, target(), 0)));
    for (int i = 0; i < s->n; i++) {
      const char *why;
      cr_assert_not_null(lw_schedule_apply(ctx, k, s->points[i].schedule, &why));
      cr_assert(s->points[i].predicted_ns > 0 && isfinite(s->points[i].predicted_ns));
      cr_assert_str_eq(s->points[i].schedule, lw_schedule_canonical(ctx, s->points[i].schedule));
      cr_assert_eq(at_space_find(s, s->points[i].schedule), i, "doubles are left out");
      if (i) cr_assert(s->points[i - 1].predicted_ns <= s->points[i].predicted_ns);
    }
  }
  cr_assert(at_space_new(ctx, kernel(gemm_text), target(), &m, 0, 1, AT_SPACE_POINTS)->n > 20);
}
Test(tune, spaces_are_legal_and_sorted) { ok(spaces); }

static const char *shared_loop(const ir_kernel *k) {
  const ir_stmt *s = k->body;
  return s && s->kind == IR_FOR && s->loop == IR_PARALLEL ? s->var->name : "";
}

/* Which loop threads share is a choice where there are threads, and only there. */
static void axes(void) {
  static const char text[] = "kernel axes(in a: f32[3, 40, 64], const b: f32[64, 96], out c: f32[3, 40, 96]) {\n"
                             "  for g in 0..3 { for m in 0..40 { for n in 0..96 {\n"
                             "    alloc acc: f32[] register\n"
                             "    acc[] = 0.0\n"
                             "    for k in 0..64 { acc[] = fma(a[g, m, k], b[k, n], acc[]) }\n"
                             "    c[g, m, n] = acc[]\n"
                             "  } } }\n"
                             "}\n";
  const ir_kernel *k = kernel(text);
  at_machine m = {3, 100, 32 << 20};
  for (int threads = 1; threads <= 2; threads++) {
    at_space *s = at_space_new(ctx, k, target(), &m, 0, threads, 300);
    int other = 0, loops = 0;
    const char *seen[300];
    for (int i = 0; i < s->n; i++) {
      const char *why;
      const ir_kernel *q = lw_schedule_apply(ctx, k, s->points[i].schedule, &why);
      cr_assert_not_null(q, "%s", why);
      cr_assert_null(ir_kernel_verify(ctx, q));
      other += s->points[i].got.axis > 1;
      if (s->points[i].got.axis < 2) continue;
      cr_assert_gt(lw_tasks_of(q), 1, "an axis without tasks:\n%s", s->points[i].schedule);
      const char *name = shared_loop(q);
      bool known = false;
      for (int j = 0; j < loops && !known; j++) known = strcmp(seen[j], name) == 0;
      if (!known) seen[loops++] = name;
    }
    if (threads == 1) cr_assert_eq(other, 0);
    else cr_assert(other > 10, "%d points of %d share another loop", other, s->n);
  }
  lw_tunables got;
  const ir_kernel *by_rule, *turned;
  lw_schedule_with(ctx, k, target(), &(lw_tunables){.order = 1}, &got, &by_rule);
  cr_assert_eq(got.axis, 0);
  lw_schedule_with(ctx, k, target(), &(lw_tunables){.order = 1, .axis = 2}, &got, &turned);
  cr_assert_eq(got.axis, 2);
  cr_assert_str_neq(ir_kernel_print(ctx, by_rule), ir_kernel_print(ctx, turned));
  lw_schedule_with(ctx, k, target(), &(lw_tunables){.axis = 9}, &got, &turned);
  cr_assert_eq(got.axis, 0, "no such loop: the rule");
  cr_assert_gt(lw_tasks_of(turned), 1);
}
Test(tune, axes_are_for_threads) { ok(axes); }

/* What was found for one thread stands in for two where its tasks are as even as the default's, and only there. */
static void stands_in(void) {
  const ir_kernel *k = kernel("kernel rows(in a: f32[3, 64, 512], out b: f32[3, 64, 512]) { for g in 0..3 { for m in 0..64 { for n in 0..512 { b[g, m, n] = exp(a[g, m, n]) } } } }");
  static const struct { const char *schedule; bool on_two; } found[] = {{"parallel g", false}, {"split n 8 -> no ni\nvectorize ni", false}, {"fuse g m -> gm\nparallel gm", true}};
  for (int i = 0; i < IR_COUNT(found); i++) {
    at_store *store = at_store_open(ctx, ":memory:", 0);
    at_trial t = {.key = {ir_kernel_canonical(ctx, k), cg_target_fingerprint(ctx, target()), at_policy(ctx, 1), at_codegen(ctx)}, .status = AT_OK, .samples = (double[]){100}, .n = 1};
    t.schedule = lw_schedule_unnamed(ctx, k, found[i].schedule);
    at_store_add_trials(store, NULL, &t, 1);
    for (int threads = 1; threads <= 2; threads++) {
      at_lookup *l = at_lookup_new(ctx, store, target(), threads, NULL, NULL);
      cr_expect_eq(at_lookup_schedule(l, ctx, k) != NULL, threads == 1 || found[i].on_two, "%s, %d threads", found[i].schedule, threads);
    }
  }
}
Test(tune, schedules_of_one_thread_on_two) { ok(stands_in); }

static void prediction(void) {
  const ir_kernel *k = kernel(gemm_text);
  const char *why, *text = lw_default_schedule(ctx, k, target(), 0);
  double plain = at_predict(ctx, k, target(), NULL).total, tiled = at_predict(ctx, lw_schedule_apply(ctx, k, text, &why), target(), NULL).total;
  cr_assert(tiled < plain / 2, "a tiled kernel (%g ns) is predicted to be faster than a plain one (%g ns)", tiled, plain);
}
Test(tune, the_model_knows_that_tiles_help) { ok(prediction); }

/* The same kernel under other names; `vo` and `ri` are names that default schedules like to give. */
static const char twin_text[] = "kernel twin(in x: f32[24, 32], const vo: f32[32, 48], out y: f32[24, 48]) {\n"
                                "  for vo in 0..24 { for q in 0..48 {\n"
                                "    alloc s: f32[] register\n"
                                "    s[] = 0.0\n"
                                "    for ri in 0..32 { s[] = fma(x[vo, ri], vo[ri, q], s[]) }\n"
                                "    y[vo, q] = max(0.0, s[])\n"
                                "  } }\n"
                                "}\n";

static void twins(void) {
  const ir_kernel *k = kernel(gemm_text), *twin = kernel(twin_text);
  cr_assert_str_eq(ir_kernel_canonical(ctx, k), ir_kernel_canonical(ctx, twin));
  at_space *s = at_space_new(ctx, k, target(), &(at_machine){3, 100, 32 << 20}, 0, 1, 300);
  for (int i = 0; i < s->n; i++) {
    const char *why, *text = s->points[i].schedule, *kept = lw_schedule_unnamed(ctx, k, text), *other = lw_schedule_named(ctx, twin, kept);
    cr_assert_str_eq(lw_schedule_named(ctx, k, kept), text);
    cr_assert_str_eq(lw_schedule_unnamed(ctx, k, kept), kept, "a kept text is kept as it is");
    cr_assert_str_eq(lw_schedule_named(ctx, k, text), text, "a text from before there were such names");
    const ir_kernel *a = lw_schedule_apply(ctx, k, text, &why), *b = lw_schedule_apply(ctx, twin, other, &why);
    cr_assert_not_null(b, "%s\n%s", why, other);
    cr_assert_str_eq(ir_kernel_canonical(ctx, a), ir_kernel_canonical(ctx, b), "%s", other);
  }
}
Test(tune, schedules_know_no_names) { ok(twins); }

/* ---- workers ---- */

static void lab_works(void) {
  at_lab *lab = at_lab_new(ctx, &(at_lab_options){.target = target(), .jobs = 2, .seed = 3});
  at_subject s = {.kernel = kernel(gemm_text)};
  cr_assert_null(at_lab_kernel(lab, &s));
  cr_assert_eq(s.nreferences, 1);
  at_candidate good = {.schedule = lw_default_schedule(ctx, s.kernel, target(), 0)}, plain = {.schedule = ""}, refused = {.schedule = "split x 4 -> a b\n"},
               malformed = {.schedule = "fold spindle\n"};
  at_candidate *all[] = {&good, &plain, &refused, &malformed};
  at_lab_compile(lab, 4, all);
  cr_assert_eq(refused.status, AT_REFUSED);
  cr_assert_not_null(strstr(refused.reason, "no loop 'x'"), "%s", refused.reason);
  cr_assert_eq(malformed.status, AT_COMPILE_ERROR);
  at_lab_check(lab, 4, all);
  cr_assert(at_lab_has(lab, &good) && at_lab_has(lab, &plain) && !at_lab_has(lab, &refused));
  cr_assert(at_lab_time(lab, 4, all, 3));
  cr_assert(good.n == 3 && plain.n == 3 && refused.n == 0);
  for (int i = 0; i < 3; i++) cr_assert(good.samples[i] > 0 && plain.samples[i] > 0);
  cr_assert_eq(at_lab_restarts(lab), 0);
  /* a kernel that comes back brings its reference along */
  at_subject other = {.kernel = kernel(add_text)};
  cr_assert_null(at_lab_kernel(lab, &other));
  cr_assert(!at_lab_has(lab, &good));
  cr_assert_null(at_lab_kernel(lab, &s));
  at_lab_check(lab, 4, all);
  cr_assert(at_lab_time(lab, 4, all, 1));
  cr_assert_eq(good.n, 4);
  at_subject_free(lab, &s);
  at_subject_free(lab, &other);
  at_lab_free(lab);
}
Test(tune, lab) { ok(lab_works); }

/* Tasks that wait for each other: one thread alone would not come to an end. */
static atomic_int met, after;
static void meet(void *const *args, int32_t task, int32_t worker) {
  (void)args, (void)worker;
  if (task >= 2) {
    after += atomic_load(&met) == 2;
    return;
  }
  met++;
  for (double start = rt_now(); atomic_load(&met) < 2 && rt_now() < start + 20;) {}
}

static void threads(void) {
  rt_pool *pool = rt_pool_new(2);
  at_code code = {.fn = meet, .tasks = 3, .phases = {.nphases = 2, .phase = {2, 1}}, .threads = rt_pool_threads(pool)};
  at_code_run(&code, NULL);
  cr_assert_eq(met, 2, "two threads");
  cr_assert_eq(after, 1, "the second phase comes after the first, once");
  rt_pool_free(pool);
  /* the lab's candidates: some tasks, and parts of a sum with a phase behind them */
  at_lab *lab = at_lab_new(ctx, &(at_lab_options){.target = target(), .jobs = 1, .threads = 2});
  at_subject s = {.kernel = kernel("kernel long(in a: f32[8, 4096], const b: f32[4096, 16], out c: f32[8, 16]) {\n"
                                   "  for m in 0..8 { for n in 0..16 {\n"
                                   "    alloc acc: f32[] register\n"
                                   "    acc[] = 0.0\n"
                                   "    for k in 0..4096 { acc[] = fma(a[m, k], b[k, n], acc[]) }\n"
                                   "    c[m, n] = acc[]\n"
                                   "  } }\n"
                                   "}\n")};
  cr_assert_null(at_lab_kernel(lab, &s));
  lw_tunables u = {.parts = 4};
  at_candidate parts = {.schedule = lw_schedule_with(ctx, s.kernel, target(), &u, NULL, NULL)}, rows = {.schedule = "parallel m\n"}, *all[] = {&parts, &rows};
  at_lab_compile(lab, 2, all);
  at_lab_check(lab, 2, all);
  for (int i = 0; i < 2; i++) cr_assert_eq(all[i]->status, AT_OK, "%s", all[i]->reason);
  cr_assert_gt(parts.nphases, 1, "%s", parts.schedule);
  cr_assert_eq(rows.tasks, 8);
  cr_assert(at_lab_time(lab, 2, all, 3));
  for (int i = 0; i < 3; i++) cr_assert(parts.samples[i] > 0 && rows.samples[i] > 0);
  at_subject_free(lab, &s);
  at_lab_free(lab);
}
Test(tune, several_threads) { ok(threads); }

/* A reference of a sample of the outputs, and what is then taken in full. */
static void sampled(void) {
  at_lab *lab = at_lab_new(ctx, &(at_lab_options){.target = target(), .jobs = 1, .reference_work = 5000});
  at_subject s = {.kernel = kernel(gemm_text)};
  cr_assert_null(at_lab_kernel(lab, &s));
  cr_assert(s.sampled);
  at_candidate good = {.schedule = lw_default_schedule(ctx, s.kernel, target(), 0)}, plain = {.schedule = ""};
  at_candidate *all[] = {&good, &plain};
  at_lab_compile(lab, 2, all);
  at_lab_check(lab, 2, all);
  cr_assert_eq(good.status, AT_OK, "%s", good.reason);
  cr_assert_eq(plain.status, AT_OK, "%s", plain.reason);
  at_subject_free(lab, &s);
}
Test(tune, sampled_reference) { ok(sampled); }

/* Sums that are not exact in any order: the default's order must pass. */
static const char norm_text[] = "kernel norm(in a: f32[6, 768], out b: f32[6, 768]) {\n"
                                "  for i in 0..6 {\n"
                                "    alloc s: f32[] register\n"
                                "    alloc q: f32[] register\n"
                                "    s[] = 0.0\n"
                                "    for j in 0..768 { s[] = s[] + a[i, j] }\n"
                                "    let mean = s[] * 0.00130208337\n"
                                "    q[] = 0.0\n"
                                "    for j2 in 0..768 { let d = a[i, j2] - mean q[] = fma(d, d, q[]) }\n"
                                "    for j3 in 0..768 { b[i, j3] = (a[i, j3] - mean) / sqrt(q[] * 0.00130208337 + 1e-05) }\n"
                                "  }\n"
                                "}\n";

static void sums(void) {
  at_lab *lab = at_lab_new(ctx, &(at_lab_options){.target = target(), .jobs = 1});
  at_subject s = {.kernel = kernel(norm_text)};
  cr_assert_null(at_lab_kernel(lab, &s));
  at_candidate c = {.schedule = lw_default_schedule(ctx, s.kernel, target(), 0)}, *all[] = {&c};
  cr_assert(strlen(c.schedule) > 0);
  at_lab_compile(lab, 1, all);
  at_lab_check(lab, 1, all);
  cr_assert_eq(c.status, AT_OK, "%s", c.reason);
}
Test(tune, sums_in_another_order) { ok(sums); }

/* ---- candidates that misbehave ---- */

typedef enum crime { NONE, CRASH, ABORT, HANG, HOG, WRONG, BEFORE, BEHIND, FAR_BEHIND, WRITE_INPUT, CRASH_COMPILING, HANG_COMPILING, CRIMES } crime;
static const at_status verdict[CRIMES] = {AT_OK,    AT_CRASH, AT_CRASH, AT_HANG,  AT_OOM,  AT_WRONG,
                                          AT_WRONG, AT_WRONG, AT_WRONG, AT_WRONG, AT_CRASH, AT_HANG};

static void commit_crime(crime c, at_moment moment, void *const *args, int nargs) {
  static volatile int sink;
  volatile char *out = args ? args[nargs - 1] : NULL;
  if (moment == AT_COMPILING) {
    if (c == CRASH_COMPILING) raise(SIGSEGV);
    while (c == HANG_COMPILING) sink++;
    return;
  }
  if (moment == AT_AFTER_RUN) {
    if (c == WRONG) out[5] ^= 0x40;
    return;
  }
  switch (c) {
  case CRASH: *(volatile int *)(uintptr_t)(nargs + 7) = 1; break;
  case ABORT: abort();
  case HANG: for (;;) sink++;
  case HOG:
    for (;;) {
      char *p = malloc(64 << 20);
      if (!p) _exit(77);
      for (size_t i = 0; i < 64 << 20; i += 4096) p[i] = 1;
    }
  case BEFORE: out[-1] = 1; break;
  case BEHIND: out[24 * 48 * 4] = 1; break;
  case FAR_BEHIND: out[24 * 48 * 4 + 8192 - 64] = 1; break;
  case WRITE_INPUT: *(volatile char *)args[0] = 1; break;
  default: break;
  }
}

/* One candidate that commits the crime chosen, between two that do not. */
static void one_crime(void *user, at_moment moment, const char *schedule, void *const *args, int nargs) {
  if (strstr(schedule, "split m 2 ->")) commit_crime(*(crime *)user, moment, args, nargs);
}

static void crimes(void) {
  for (crime c = NONE; c < CRIMES; c++) {
    at_lab_options o = {.target = target(), .jobs = 1, .limits = {1, 1, 300 << 20}, .misbehave = {one_crime, &c}};
    at_lab *lab = at_lab_new(ctx, &o);
    at_subject s = {.kernel = kernel(gemm_text)};
    cr_assert_null(at_lab_kernel(lab, &s));
    at_candidate x[3] = {{.schedule = ""}, {.schedule = "split m 2 -> mo mi\n"}, {.schedule = "split m 4 -> mo mi\n"}}, *all[] = {&x[0], &x[1], &x[2]};
    at_lab_compile(lab, 3, all);
    at_lab_check(lab, 3, all);
    cr_assert_eq(x[1].status, verdict[c], "crime %d is %s (%s)", c, at_status_name(x[1].status), x[1].reason ? x[1].reason : "");
    cr_assert_eq(x[0].status, AT_OK, "%s", x[0].reason);
    cr_assert_eq(x[2].status, AT_OK, "%s", x[2].reason);
    if (c) cr_assert(x[1].reason && *x[1].reason);
    cr_assert(at_lab_time(lab, 3, all, 2), "the innocent are timed");
    cr_assert(x[0].n == 2 && x[2].n == 2 && (c == NONE || x[1].n == 0));
    at_subject_free(lab, &s);
    at_lab_free(lab);
  }
}
Test(tune, crimes_are_recorded, .timeout = 120) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  ok(crimes);
#else
  (void)crimes; /* faults and limits belong to the sanitizer there */
#endif
}

/* ---- searches ---- */

/* `standard`: the defaults of both kernels, gemm's first. */
static bool is_standard(const char *schedule, const char *const *standard) {
  return strcmp(schedule, standard[0]) == 0 || strcmp(schedule, standard[1]) == 0;
}

static const char *default_of(const char *text) { return lw_schedule_canonical(ctx, lw_default_schedule(ctx, kernel(text), target(), 0)); }

static void some_crimes(void *user, at_moment moment, const char *schedule, void *const *args, int nargs) {
  if (is_standard(schedule, user)) return;
  uint64_t h = ir_hash_bytes(schedule, strlen(schedule), 5) % 16;
  static const crime list[8] = {CRASH, WRONG, BEHIND, FAR_BEHIND, WRITE_INPUT, CRASH_COMPILING, BEFORE, ABORT};
  if (h < 8) commit_crime(list[h], moment, args, nargs);
}

static bool innocent(const char *schedule, const char *const *standard) {
  return is_standard(schedule, standard) || ir_hash_bytes(schedule, strlen(schedule), 5) % 16 >= 8;
}

static const char *db(void) { return ir_format(ctx, "%s/tune.db", dir); }

static const at_tune_result *tune(at_store *store, int64_t trials, double budget, at_misbehave bad) {
  at_tune_kernel k[2] = {{kernel(gemm_text), "gemm", 2, false}, {kernel(add_text), "add", 1, false}};
  at_tune_options o = {.target = target(), .store = store, .trials = trials, .budget_s = budget, .seed = 1, .jobs = 1, .misbehave = bad};
  return at_tune(ctx, 2, k, &o);
}

static bool check_trial(void *user, const at_record *r) {
  if (strcmp(r->name, "gemm") == 0 && r->status == AT_OK) cr_assert(innocent(lw_schedule_named(ctx, kernel(gemm_text), r->schedule), user), "a bad candidate counts as ok: %s", r->schedule);
  return true;
}

static void search(void) {
  const char *standard[2] = {default_of(gemm_text), default_of(add_text)};
  at_misbehave bad = {some_crimes, standard};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  bad.fn = NULL;
#endif
  at_store *store = at_store_open(ctx, db(), 0);
  const at_tune_result *r = tune(store, 20, 0, bad);
  cr_assert_eq(r->n, 2);
  cr_assert_eq(r->state[0].tried, 20);
  if (bad.fn) cr_assert(r->failed > 0);
  if (bad.fn) at_store_each_trial(store, &(at_filter){0}, check_trial, standard);
  at_winner w;
  at_key key = at_key_of(ctx, kernel(gemm_text), target(), 1);
  cr_assert(at_store_best(store, &key, &w));
  const char *winner = lw_schedule_named(ctx, kernel(gemm_text), w.schedule);
  cr_assert(innocent(winner, standard));
  cr_assert_str_eq(winner, r->state[0].proven ? r->state[0].schedule : standard[0]);
  /* the same again: nothing is tried twice */
  at_store_close(store);
  store = at_store_open(ctx, db(), 0);
  const at_tune_result *again = tune(store, 20, 0, bad);
  cr_assert_eq(again->trials, 0);
  cr_assert_eq(again->state[0].tried, 20);
  cr_assert_str_eq(again->state[0].schedule, r->state[0].schedule);
  /* more of it: the old ones count */
  const at_tune_result *more = tune(store, 26, 0, bad);
  cr_assert_eq(more->state[0].trials, 6);
  at_store_close(store);
}
Test(tune, search_survives_and_resumes, .timeout = 300) { ok(search); }

/* A default that failed is a fact that the next run finds in the store. */
static void default_crashes(void *user, at_moment moment, const char *schedule, void *const *args, int nargs) {
  if (strcmp(schedule, user) == 0) commit_crime(CRASH, moment, args, nargs);
}

static void bad_default(void) {
  at_misbehave bad = {default_crashes, (void *)(uintptr_t)default_of(add_text)};
  for (int run = 0; run < 2; run++) {
    at_store *store = at_store_open(ctx, db(), 0);
    const at_tune_result *r = tune(store, 4, 0, bad);
    cr_assert_not_null(strstr(r->state[1].trouble, "the default schedule: crash: "), "%s", r->state[1].trouble);
    cr_assert_eq(r->state[0].tried, 4);
    cr_assert_eq(r->trials, run ? 0 : 5);
    at_store_close(store);
  }
}
Test(tune, a_default_that_crashes_does_so_once, .timeout = 120) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  ok(bad_default);
#else
  (void)bad_default;
#endif
}

/* A search that an earlier run all but ended: default and another schedule had a final, and two hundred others failed. */
static void earlier_final(at_store *store, const ir_kernel *k, const char *other) {
  enum { ROUNDS = 60, FAILED = 200 };
  double slow[ROUNDS], fast[ROUNDS];
  at_trial r[2 + FAILED];
  at_key key = at_key_of(ctx, k, target(), 1);
  for (int i = 0; i < ROUNDS; i++) slow[i] = 1000 + i % 3, fast[i] = 500 + i % 2;
  r[0] = (at_trial){.key = key, .klass = "gemm", .schedule = lw_schedule_unnamed(ctx, k, default_of(gemm_text)), .stage = AT_STAGE_FINAL, .origin = AT_FINAL, .samples = slow, .n = ROUNDS, .cost_ns = 1000, .time_us = 1};
  r[1] = r[0];
  r[1].schedule = lw_schedule_unnamed(ctx, k, other), r[1].samples = fast, r[1].cost_ns = 500;
  for (int i = 0; i < FAILED; i++)
    r[2 + i] = (at_trial){.key = key, .klass = "gemm", .schedule = ir_format(ctx, "split v0 %d -> a b\n", i + 100), .status = AT_REFUSED, .origin = "model", .reason = "no", .time_us = 2};
  at_store_add_trials(store, NULL, r, 2 + FAILED);
}

static at_store *open_late(void *user) {
  at_store **store = user;
  return *store = at_store_open(ctx, db(), 0);
}

/* The store is opened while the machine is probed. */
static void opened_meanwhile(void) {
  at_store *store = NULL;
  at_tune_kernel one = {kernel(gemm_text), "gemm", 1, false};
  at_tune_options o = {.target = target(), .open = open_late, .open_user = &store, .trials = 2, .jobs = 1};
  const at_tune_result *r = at_tune(ctx, 1, &one, &o);
  cr_assert(store && r->ghz > 0 && r->trials == 2);
  int n;
  at_key key = at_key_of(ctx, one.kernel, target(), 1);
  at_store_seen(store, &key, &n);
  cr_assert_eq(n, 2);
  at_store_close(store);

  double start = rt_now();
  at_lab *lab = at_lab_new(ctx, &(at_lab_options){.target = target(), .jobs = 1});
  at_lab_probe(lab);
  double asked = rt_now() - start;
  while (rt_now() < start + 0.3) {} /* longer than a probe takes, which alone counts */
  cr_assert(at_lab_machine(lab).fma_gflops > 0);
  cr_assert_gt(at_lab_spent(lab).checking, 0);
  cr_assert_leq(at_lab_spent(lab).checking, rt_now() - start);
  cr_assert_lt(asked, 0.3);
  at_lab_stop(lab);
  at_lab_free(lab);
}
Test(tune, a_store_is_opened_while_the_machine_is_probed, .timeout = 120) { ok(opened_meanwhile); }

/* No time for another final: the winner of the last one stays, where the default was raced alone and won. */
static void winner_stays(void) {
  const ir_kernel *k = kernel(gemm_text);
  const char *other = "split m 2 -> mo mi\n";
  at_store *store = at_store_open(ctx, db(), 0);
  earlier_final(store, k, other);
  at_tune_kernel one = {k, "gemm", 1, false};
  at_tune_options o = {.target = target(), .store = store, .budget_s = 1, .jobs = 1};
  const at_tune_result *r = at_tune(ctx, 1, &one, &o);
  cr_assert_eq(r->trials, 0);
  cr_assert(r->state[0].converged);
  cr_assert_str_eq(r->state[0].schedule, other);
  at_winner w;
  at_key key = at_key_of(ctx, k, target(), 1);
  cr_assert(at_store_best(store, &key, &w));
  cr_assert_str_eq(lw_schedule_named(ctx, k, w.schedule), other);
  at_store_close(store);
}
Test(tune, a_winner_stays_without_time_for_a_final, .timeout = 120) { ok(winner_stays); }

/* What a store counts by is a config's final of the most rounds: others than the winner of the last may be before it. */
Test(tune, finals_of_other_moments) {
  at_config c[4] = {{.schedule = "default"}, {.schedule = "winner"}, {.schedule = "lucky"}, {.schedule = "slower"}}, *all[] = {&c[0], &c[1], &c[2], &c[3]}, *out[AT_FINALISTS];
  at_task t = {.n = 4, .configs = all, .standard = &c[0]};
  at_task_found(&c[0], 150, 100);
  at_task_found(&c[1], 150, 80);
  at_task_found(&c[2], 60, 75);
  at_task_found(&c[3], 60, 81);
  cr_assert_eq(at_task_overrated(&t, &c[1], out), 1);
  cr_assert_eq(out[0], &c[2]);
  at_task_found(&c[2], 30, 90);
  cr_assert_eq(at_task_overrated(&t, &c[1], out), 1, "fewer rounds do not replace it");
  at_task_found(&c[2], 60, 90);
  cr_assert_eq(at_task_overrated(&t, &c[1], out), 0);
  c[3].founded_ns = 10, c[3].status = AT_WRONG;
  cr_assert_eq(at_task_overrated(&t, &c[1], out), 0, "what was wrong once never wins");
}

static bool count(void *user, const at_record *r) {
  (void)user, (void)r;
  return true;
}

static volatile sig_atomic_t flag;
static void raise_flag(void *user, const at_tune_progress *p) {
  (void)user;
  if (p->trials >= 3) flag = 1;
}

static void stops(void) {
  at_store *store = at_store_open(ctx, db(), 0);
  at_tune_kernel k = {kernel(gemm_text), "gemm", 1, false};
  at_tune_options o = {.target = target(), .store = store, .trials = 500, .jobs = 1, .stop = &flag, .progress = raise_flag};
  const at_tune_result *r = at_tune(ctx, 1, &k, &o);
  cr_assert(r->stopped && r->trials < 500);
  int64_t rows = at_store_each_trial(store, &(at_filter){0}, count, NULL);
  cr_assert(rows >= 3 || r->trials < 3);
  at_store_close(store);
}
Test(tune, a_flag_stops_it, .timeout = 120) { ok(stops); }

static void no_store(void) {
  const at_tune_result *r = tune(NULL, 4, 0, (at_misbehave){0});
  cr_assert_eq(r->state[0].tried, 4);
  cr_assert(r->before_ns > 0 && r->after_ns > 0);
}
Test(tune, without_a_store, .timeout = 120) { ok(no_store); }

static void equal_kernels(void) {
  at_tune_kernel k[2] = {{kernel(gemm_text), "first", 1, false}, {kernel(gemm_text), "second", 2, false}};
  at_tune_options o = {.target = target(), .trials = 3, .jobs = 1};
  const at_tune_result *r = at_tune(ctx, 2, k, &o);
  cr_assert_eq(r->trials, 3);
  cr_assert_eq(r->state[1].trials, 0);
  cr_assert_eq(r->state[1].default_ns, r->state[0].default_ns);
  cr_assert_float_eq(r->before_ns, 3 * r->state[0].default_ns, 1);
}
Test(tune, equal_kernels_share, .timeout = 120) { ok(equal_kernels); }

/* ---- looking up ---- */

static ir_program *program(void) {
  ir_program *p = IR_NEW(ctx, ir_program);
  p->name = "test";
  p->nkernels = 2;
  p->kernels = IR_NEW_ARRAY(ctx, ir_program_kernel, 2);
  p->kernels[0] = (ir_program_kernel){kernel(gemm_text), "split m 4 -> mo mi\n", NULL};
  p->kernels[1] = (ir_program_kernel){kernel(add_text), "", NULL};
  return p;
}

static void plans(void) {
  const char *text = at_plan_print(ctx, program(), target(), LW_LAYOUT_NHWC, NULL);
  at_lookup *l = at_lookup_new(ctx, NULL, target(), 1, text, "test.plan");
  cr_assert_str_eq(at_lookup_schedule(l, ctx, kernel(gemm_text)), "split m 4 -> mo mi\n");
  cr_assert_str_eq(at_lookup_schedule(l, ctx, kernel(add_text)), "");
  const ir_kernel *other = kernel("kernel x(out a: f32[3]) { for i in 0..3 { a[i] = 1.0 } }");
  cr_assert_null(at_lookup_schedule(l, ctx, other));
  cr_assert(at_lookup_knows(l, ctx, kernel(add_text)) && !at_lookup_knows(l, ctx, other));
  at_lookup_tally t = at_lookup_tally_of(l);
  cr_assert(t.plan == 2 && t.missed == 1);
  /* a schedule that does not fit is a miss with a warning */
  char *bent = ir_strdup(ctx, text), *m = strstr(bent, "split v0");
  m[6] = 'z';
  l = at_lookup_new(ctx, NULL, target(), 1, bent, "test.plan");
  cr_assert_null(at_lookup_schedule(l, ctx, kernel(gemm_text)));
  cr_assert_eq(at_lookup_layout(l, NULL), LW_LAYOUT_NHWC);
  cr_assert_not_null(strstr(said, "no loop 'z0'"), "%s", said);
}
Test(tune, plans) { ok(plans); }

static const char *bad_plan;
static void read_bad(void) { at_lookup_new(ctx, NULL, target(), 1, bad_plan, "bad.plan"); }
Test(tune, plans_that_are_none) {
  static const char *const texts[] = {
      "", "kernel 00\n", "# tenon plan 2\n", "# tenon plan 1\nhello\n", "# tenon plan 1\nkernel 0123\n",
      "# tenon plan 1\nkernel 0123456789abcdef0123456789abcdef \"x\"\nsplit\n",
      "# tenon plan 1\nkernel 0123456789abcdef0123456789abcdef\nkernel 0123456789abcdef0123456789abcdef\n"};
  for (int i = 0; i < IR_COUNT(texts); i++) {
    bad_plan = texts[i];
    cr_assert_eq(ir_protect(ctx, run_body, &(body){read_bad}), TN_EINPUT, "%d", i);
  }
}

/* A graph's layout: the fastest whole run. */
static void layout_choice(void) {
  ir_graph *g = ir_graph_new(ctx, "g");
  at_store *store = at_store_open(ctx, db(), 0);
  at_lookup *l = at_lookup_new(ctx, store, target(), 1, NULL, NULL);
  at_key key = at_layout_key(ctx, g, target(), 1);
  cr_assert_eq(at_lookup_layout(NULL, NULL), LW_LAYOUT_AUTO);
  cr_assert_eq(at_lookup_layout(l, &key), LW_LAYOUT_AUTO);
  double fast[3] = {10, 10, 10}, slow[3] = {12, 12, 12};
  at_trial rows[2] = {{.key = key, .schedule = "layout NCHWc\n", .samples = slow, .n = 3}, {.key = key, .schedule = "layout NHWC\n", .samples = fast, .n = 3}};
  at_store_add_trials(store, NULL, rows, 2);
  cr_assert_eq(at_lookup_layout(l, &key), LW_LAYOUT_NHWC);
  /* and whether winners are a gain: the latest verdict */
  at_key whole = at_whole_key(ctx, g, target(), 1);
  cr_assert(!at_lookup_untuned(NULL, &whole) && !at_lookup_untuned(l, &whole));
  for (int i = 0; i < 3; i++) {
    at_trial verdict[2] = {{.key = whole, .schedule = "untuned\n", .samples = i % 2 ? slow : fast, .n = 1, .time_us = 10 + i},
                           {.key = whole, .schedule = "tuned\n", .samples = i % 2 ? fast : slow, .n = 1, .time_us = 10 + i}};
    at_store_add_trials(store, NULL, verdict, 2);
    cr_assert_eq(at_lookup_untuned(l, &whole), i % 2 == 0);
  }
  at_store_close(store);
}
Test(tune, layout_of_a_graph) { ok(layout_choice); }

static void stored(void) {
  at_store *store = at_store_open(ctx, db(), 0);
  at_key key = at_key_of(ctx, kernel(gemm_text), target(), 1);
  double ns[3] = {10, 10, 10};
  at_trial rows[2] = {{.key = key, .schedule = "split m 4 -> mo mi\n", .samples = ns, .n = 3}, {.key = key, .schedule = "nonsense\n", .samples = ns, .n = 1}};
  at_store_add_trials(store, NULL, rows, 2);
  at_lookup *l = at_lookup_new(ctx, store, target(), 1, NULL, NULL);
  cr_assert_str_eq(at_lookup_schedule(l, ctx, kernel(gemm_text)), "split m 4 -> mo mi\n");
  cr_assert_null(at_lookup_schedule(l, ctx, kernel(add_text)));
  /* a winner is one for every kernel of that text */
  at_trial twin = {.key = key, .schedule = lw_schedule_unnamed(ctx, kernel(twin_text), "split vo 8 -> mo mi\n"), .samples = (double[3]){9, 9, 9}, .n = 3};
  at_store_add_trials(store, NULL, &twin, 1);
  cr_assert_str_eq(at_lookup_schedule(l, ctx, kernel(gemm_text)), "split m 8 -> mo mi\n");
  cr_assert_str_eq(at_lookup_schedule(l, ctx, kernel(twin_text)), "split vo 8 -> mo mi\n");
  /* what somebody pinned and what is no schedule: a warning and the default */
  at_store_pin(store, &key, "gemm", "gemm", "nonsense\n", "");
  cr_assert_null(at_lookup_schedule(l, ctx, kernel(gemm_text)));
  cr_assert_not_null(strstr(said, "does not fit"), "%s", said);
  at_store_close(store);
}
Test(tune, winners_of_the_store) { ok(stored); }

/* Winners are those of so many threads; what is known of one stands in. */
static void stored_by_threads(void) {
  at_store *store = at_store_open(ctx, db(), 0);
  double ns[3] = {10, 10, 10};
  at_trial one = {.key = at_key_of(ctx, kernel(gemm_text), target(), 1), .schedule = "split m 4 -> mo mi\nparallel mo\n", .samples = ns, .n = 3};
  at_trial two = {.key = at_key_of(ctx, kernel(gemm_text), target(), 2), .schedule = "split m 8 -> mo mi\n", .samples = ns, .n = 3};
  at_lookup *l[4];
  for (int n = 1; n <= 3; n++) l[n] = at_lookup_new(ctx, store, target(), n, NULL, NULL);
  at_store_add_trials(store, NULL, &two, 1);
  cr_assert_null(at_lookup_schedule(l[1], ctx, kernel(gemm_text)));
  at_store_add_trials(store, NULL, &one, 1);
  cr_assert_str_eq(at_lookup_schedule(l[1], ctx, kernel(gemm_text)), one.schedule);
  cr_assert_str_eq(at_lookup_schedule(l[2], ctx, kernel(gemm_text)), two.schedule);
  cr_assert_str_eq(at_lookup_schedule(l[3], ctx, kernel(gemm_text)), one.schedule);
  cr_assert(at_lookup_knows(l[3], ctx, kernel(gemm_text)));
  /* but not without tasks, where the default has some */
  const ir_kernel *large = kernel("kernel large(in a: f32[96, 64], const b: f32[64, 96], out c: f32[96, 96]) {\n"
                                  "  for m in 0..96 { for n in 0..96 {\n"
                                  "    alloc acc: f32[] register\n"
                                  "    acc[] = 0.0\n"
                                  "    for k in 0..64 { acc[] = fma(a[m, k], b[k, n], acc[]) }\n"
                                  "    c[m, n] = acc[]\n"
                                  "  } }\n"
                                  "}\n");
  one.key = at_key_of(ctx, large, target(), 1);
  one.schedule = "split m 4 -> mo mi\n";
  at_store_add_trials(store, NULL, &one, 1);
  cr_assert_str_eq(at_lookup_schedule(l[1], ctx, large), one.schedule);
  cr_assert_null(at_lookup_schedule(l[3], ctx, large));
  one.schedule = "split m 4 -> mo mi\nparallel mo\n";
  one.samples = (double[4]){9, 9, 9, 9}, one.n = 4;
  at_store_add_trials(store, NULL, &one, 1);
  cr_assert_str_eq(at_lookup_schedule(l[3], ctx, large), one.schedule);
  /* the same for whole runs */
  ir_graph *g = ir_graph_new(ctx, "g");
  at_key whole[4];
  for (int n = 1; n <= 3; n++) whole[n] = at_whole_key(ctx, g, target(), n);
  at_trial verdict[2] = {{.key = whole[1], .schedule = "untuned\n", .samples = ns, .n = 1}, {.key = whole[2], .schedule = "tuned\n", .samples = ns, .n = 1}};
  at_store_add_trials(store, NULL, verdict, 2);
  cr_assert(at_lookup_untuned(l[1], &whole[1]) && !at_lookup_untuned(l[2], &whole[2]) && at_lookup_untuned(l[3], &whole[3]));
  at_store_close(store);
}
Test(tune, winners_by_threads) { ok(stored_by_threads); }
