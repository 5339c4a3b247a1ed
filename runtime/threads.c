/* threads.c — the thread pool. See threads.h.
 *
 * A region is published by adding 1 to `epoch`; its end is `pending` reaching 0. Both are spun on
 * for SPINS pauses before a thread sleeps on a condition variable. Each worker has a block of tasks, which it takes from
 * the front; who has done its own takes from the back of others'. A claim is an exchange of a block's word, so it
 * belongs to the region that runs then, however late the worker is: nobody waits for one that has not come. A sleeper announces
 * itself in a counter before it looks at the word a last time, and the other side writes the word
 * before it reads the counter, both sequentially consistent: one of them sees the other.
 */
#include "runtime/threads.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* A pause is 40 to 140 cycles on x86-64: some 30 to 100 microseconds in all, longer than
 * the gap between two kernels of a model, shorter than anybody notices on a shared machine. */
#define SPINS 2000

/* Tasks [low half, high half) of the word are left. */
typedef struct block {
  _Alignas(64) atomic_uint_fast64_t left;
} block;

struct rt_pool {
  rt_threads face;
  int started;             /* threads that run */
  pthread_t *threads;
  pthread_mutex_t lock;    /* guards the sleeping only */
  pthread_cond_t work, done;
  atomic_flag busy;        /* a region is running */
  block *blocks;           /* per worker */
  /* The region: written by the caller before there are tasks to claim. */
  void (*body)(void *arg, int task, int worker);
  void *arg;
  _Alignas(64) atomic_uint epoch;
  atomic_int sleepers;     /* workers asleep, or about to be */
  atomic_bool stop;
  _Alignas(64) atomic_int pending; /* tasks that are not known to be done */
  atomic_bool caller_sleeps;
};

typedef struct start {
  rt_pool *pool;
  int worker;
} start;

static inline void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

int rt_cpu_count(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

/* A task of the block, its first or its last; -1: none is left. */
static int claim(block *b, bool first) {
  uint64_t w = atomic_load(&b->left);
  for (;;) {
    uint32_t from = (uint32_t)w, to = (uint32_t)(w >> 32);
    if (from >= to) return -1;
    uint64_t rest = first ? w + 1 : w - ((uint64_t)1 << 32);
    if (atomic_compare_exchange_weak(&b->left, &w, rest)) return (int)(first ? from : to - 1);
  }
}

/* What this worker gets hold of; returns how many tasks that were. */
static int run_tasks(rt_pool *p, int worker) {
  int workers = p->started + 1, done = 0;
  for (int i = 0; i < workers; i++) {
    int b = (worker + i) % workers;
    for (int t; (t = claim(&p->blocks[b], i == 0)) >= 0; done++) p->body(p->arg, t, worker);
  }
  return done;
}

static void share_out(rt_pool *p, int tasks) {
  int workers = p->started + 1;
  for (int w = 0; w < workers; w++) {
    uint64_t from = (uint64_t)((int64_t)tasks * w / workers), to = (uint64_t)((int64_t)tasks * (w + 1) / workers);
    atomic_store(&p->blocks[w].left, to << 32 | from);
  }
}

static unsigned wait_for_work(rt_pool *p, unsigned seen) {
  for (int i = 0; i < SPINS; i++) {
    unsigned e = atomic_load_explicit(&p->epoch, memory_order_acquire);
    if (e != seen) return e;
    pause_a_little();
  }
  pthread_mutex_lock(&p->lock);
  atomic_fetch_add(&p->sleepers, 1);
  unsigned e;
  while ((e = atomic_load(&p->epoch)) == seen) pthread_cond_wait(&p->work, &p->lock);
  atomic_fetch_sub(&p->sleepers, 1);
  pthread_mutex_unlock(&p->lock);
  return e;
}

static void *worker_main(void *arg) {
  start s = *(start *)arg;
  free(arg);
  rt_pool *p = s.pool;
  unsigned seen = 0;
  for (;;) {
    seen = wait_for_work(p, seen);
    if (atomic_load_explicit(&p->stop, memory_order_relaxed)) return NULL;
    int done = run_tasks(p, s.worker);
    if (done && atomic_fetch_sub(&p->pending, done) == done && atomic_load(&p->caller_sleeps)) {
      pthread_mutex_lock(&p->lock);
      pthread_cond_signal(&p->done);
      pthread_mutex_unlock(&p->lock);
    }
  }
}

static void wake(rt_pool *p) {
  atomic_fetch_add(&p->epoch, 1);
  if (atomic_load(&p->sleepers) == 0) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->work);
  pthread_mutex_unlock(&p->lock);
}

static void wait_for_end(rt_pool *p) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load_explicit(&p->pending, memory_order_acquire) == 0) return;
    pause_a_little();
  }
  pthread_mutex_lock(&p->lock);
  atomic_store(&p->caller_sleeps, true);
  while (atomic_load(&p->pending) != 0) pthread_cond_wait(&p->done, &p->lock);
  atomic_store(&p->caller_sleeps, false);
  pthread_mutex_unlock(&p->lock);
}

static void parallel_for(void *ctx, int tasks, void (*body)(void *arg, int task, int worker), void *arg) {
  rt_pool *p = ctx;
  if (tasks <= 1 || p->started == 0 || atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire)) {
    for (int t = 0; t < tasks; t++) body(arg, t, 0);
    return;
  }
  p->body = body, p->arg = arg;
  atomic_store_explicit(&p->pending, tasks, memory_order_relaxed);
  share_out(p, tasks);
  wake(p);
  int done = run_tasks(p, 0);
  if (atomic_fetch_sub(&p->pending, done) != done) wait_for_end(p);
  atomic_flag_clear_explicit(&p->busy, memory_order_release);
}

rt_pool *rt_pool_new(int workers) {
  if (workers <= 0) workers = rt_cpu_count();
  if (workers > 4096) workers = 4096;
  rt_pool *p = aligned_alloc(64, (sizeof *p + 63) & ~(size_t)63);
  if (!p) return NULL;
  *p = (rt_pool){.face = {p, workers, parallel_for}};
  atomic_flag_clear(&p->busy);
  p->threads = calloc((size_t)workers, sizeof *p->threads);
  p->blocks = aligned_alloc(64, (size_t)workers * sizeof *p->blocks);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->work, NULL);
  pthread_cond_init(&p->done, NULL);
  bool ok = p->threads && p->blocks;
  for (int w = 0; ok && w < workers; w++) atomic_init(&p->blocks[w].left, 0);
  /* `started` is read by workers only after a region begins, that is after this loop. */
  int n = 0;
  while (ok && n < workers - 1) {
    start *s = malloc(sizeof *s);
    if (s) *s = (start){p, n + 1};
    ok = s && pthread_create(&p->threads[n], NULL, worker_main, s) == 0;
    if (ok) n++;
    else free(s);
  }
  p->started = n;
  if (ok) return p;
  rt_pool_free(p);
  return NULL;
}

void rt_pool_free(rt_pool *p) {
  if (!p) return;
  atomic_store_explicit(&p->stop, true, memory_order_relaxed);
  wake(p);
  for (int i = 0; i < p->started; i++) pthread_join(p->threads[i], NULL);
  pthread_cond_destroy(&p->done);
  pthread_cond_destroy(&p->work);
  pthread_mutex_destroy(&p->lock);
  free(p->threads);
  free(p->blocks);
  free(p);
}

const rt_threads *rt_pool_threads(rt_pool *p) { return p ? &p->face : NULL; }
int rt_pool_workers(const rt_pool *p) { return p ? p->face.workers : 1; }
