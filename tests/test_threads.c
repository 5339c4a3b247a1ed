/* The thread pool: every task once, workers in range, nesting, many callers, sleeping workers. */
#include "runtime/threads.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct region {
  int tasks, workers;
  atomic_int *seen;      /* per task */
  int64_t *sums;         /* per worker: not atomic, so that a race shows under TSan */
  atomic_int bad;
  const rt_threads *inner;
} region;

static void body(void *arg, int task, int worker) {
  region *r = arg;
  if (task < 0 || task >= r->tasks || worker < 0 || worker >= r->workers) {
    atomic_fetch_add(&r->bad, 1);
    return;
  }
  atomic_fetch_add(&r->seen[task], 1);
  r->sums[worker * 8] += task;
}

static void check(const rt_threads *t, int tasks) {
  region r = {.tasks = tasks, .workers = t->workers};
  r.seen = calloc((size_t)tasks + 1, sizeof *r.seen);
  r.sums = calloc((size_t)t->workers * 8, sizeof *r.sums);
  t->parallel_for(t->ctx, tasks, body, &r);
  int64_t sum = 0;
  for (int w = 0; w < t->workers; w++) sum += r.sums[w * 8];
  int wrong = 0;
  for (int i = 0; i < tasks; i++) wrong += r.seen[i] != 1;
  free(r.seen), free(r.sums);
  cr_assert_eq(r.bad, 0);
  cr_assert_eq(wrong, 0, "%d of %d tasks did not run exactly once", wrong, tasks);
  cr_assert_eq(sum, (int64_t)tasks * (tasks - 1) / 2);
}

Test(threads, every_task_once) {
  for (int workers = 1; workers <= 5; workers++) {
    rt_pool *p = rt_pool_new(workers);
    cr_assert_not_null(p);
    cr_assert_eq(rt_pool_workers(p), workers);
    for (int tasks = 0; tasks < 40; tasks++) check(rt_pool_threads(p), tasks);
    for (int i = 0; i < 200; i++) check(rt_pool_threads(p), 7);
    rt_pool_free(p);
  }
}

Test(threads, after_sleep) { /* longer than the workers spin */
  rt_pool *p = rt_pool_new(3);
  for (int i = 0; i < 10; i++) {
    usleep(3000);
    check(rt_pool_threads(p), 11);
  }
  rt_pool_free(p);
}

typedef struct held {
  region r;
  atomic_int others; /* tasks that worker 0 has begun */
  atomic_int held;   /* worker 1 has a task */
} held;

static bool until(atomic_int *what, int least) {
  for (int i = 0; i < 5000; i++) {
    if (atomic_load(what) >= least) return true;
    usleep(1000);
  }
  return false;
}

/* Worker 1 keeps its first task until the caller has begun all others, and 2 ms more. */
static void held_body(void *arg, int task, int worker) {
  held *h = arg;
  if (worker) {
    bool first = atomic_fetch_add(&h->held, 1) == 0;
    if (!first || !until(&h->others, h->r.tasks - 1)) atomic_fetch_add(&h->r.bad, 1);
    usleep(2000);
  } else {
    atomic_fetch_add(&h->others, 1);
    if (!until(&h->held, 1)) atomic_fetch_add(&h->r.bad, 1);
  }
  body(&h->r, task, worker);
}

Test(threads, takes_over_and_sleeps) { /* what a worker cannot come to; the caller has to wait for its task */
  rt_pool *p = rt_pool_new(2);
  const rt_threads *t = rt_pool_threads(p);
  atomic_int seen[9] = {0};
  int64_t sums[16] = {0};
  held h = {.r = {.tasks = 9, .workers = 2, .seen = seen, .sums = sums}};
  t->parallel_for(t->ctx, 9, held_body, &h);
  cr_assert_eq(h.r.bad, 0);
  cr_assert_eq(sums[0] + sums[8], 36);
  rt_pool_free(p);
}

static void nesting_body(void *arg, int task, int worker) {
  region *r = arg;
  check(r->inner, 5 + task);
}

Test(threads, nested) {
  rt_pool *p = rt_pool_new(3);
  const rt_threads *t = rt_pool_threads(p);
  region r = {.inner = t};
  t->parallel_for(t->ctx, 6, nesting_body, &r);
  rt_pool_free(p);
}

static void *caller(void *arg) {
  for (int i = 0; i < 300; i++) check(arg, 1 + i % 20);
  return NULL;
}

Test(threads, many_callers) {
  rt_pool *p = rt_pool_new(2);
  pthread_t t[3];
  for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, caller, (void *)rt_pool_threads(p));
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  rt_pool_free(p);
}

Test(threads, pools_come_and_go) {
  for (int i = 0; i < 50; i++) {
    rt_pool *p = rt_pool_new(3);
    if (i % 2) check(rt_pool_threads(p), 9);
    rt_pool_free(p);
  }
  rt_pool_free(NULL);
  cr_assert_null(rt_pool_threads(NULL));
  cr_assert_eq(rt_pool_workers(NULL), 1);
}
