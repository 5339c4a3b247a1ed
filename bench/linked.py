"""Objects that `tenon compile` wrote, several in one C program with a clock of its own: what is left of differences
when all are timed in turn in one process."""
import os
import statistics
import subprocess

HEAD = r"""
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
typedef int run_fn(const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[], const void *weights,
                   void *state, void *arena, const void *threads);
typedef struct object {
  run_fn *run;
  const char *file; /* of the weights; "": inside the object */
  long nin, arena;
  const long *in, *out;
  long nout;
  void *memory;
  char *weights;    /* so many copies, one behind the other: cold ones are out of all caches before they are used */
  size_t bytes;
  long copies, calls;
} object;
"""

BODY = r"""
enum { COUNT = sizeof all / sizeof *all, MOST = 64 };
static const void *in[MOST];
static void *out[MOST];
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
/* At any cache line of a page: else all that is large began at the same one, and loads waited for stores to other places. */
static void *some(size_t n) {
  char *p = aligned_alloc(4096, (n + 3 * 4096) / 4096 * 4096);
  if (!p) exit(3);
  p += rand() / 7 % 64 * 64;
  for (size_t i = 0; i < n / 4; i++) ((float *)p)[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
  return p;
}
static void out_of_caches(const char *p, size_t n) {
#if defined __x86_64__
  for (size_t i = 0; i < n; i += 64) __asm__ volatile("clflush %0" : : "m"(p[i]));
  __asm__ volatile("mfence" : : : "memory");
#elif defined __aarch64__
  for (size_t i = 0; i < n; i += 64) __asm__ volatile("dc civac, %0" : : "r"(p + i) : "memory");
  __asm__ volatile("dsb ish" : : : "memory");
#else
  (void)p, (void)n;
#endif
}
static void load(object *o, long cold) {
  FILE *f = *o->file ? fopen(o->file, "rb") : NULL;
  o->memory = some((size_t)o->arena);
  o->copies = 1;
  if (!f) return;
  fseek(f, 0, SEEK_END);
  o->bytes = (size_t)ftell(f);
  rewind(f);
  size_t step = (o->bytes + 63) / 64 * 64;
  while (cold && o->bytes > 32768 && (o->copies < 2 || (o->copies < 64 && (size_t)o->copies * step <= 2 * (size_t)cold))) o->copies++;
  o->weights = some(step * (size_t)o->copies);
  if (fread(o->weights, 1, o->bytes, f) != o->bytes) exit(3);
  for (long i = 1; i < o->copies; i++) memcpy(o->weights + step * (size_t)i, o->weights, o->bytes);
  o->bytes = step;
  fclose(f);
}
static double timed(object *o, long calls) {
  for (long i = 0; o->copies > 1 && i < calls; i++) out_of_caches(o->weights + o->bytes * (size_t)i, o->bytes);
  double start = now();
  for (long i = 0; i < calls; i++) {
    const void *w = o->weights ? o->weights + o->bytes * (size_t)(o->copies > 1 ? i : 0) : NULL;
    if (o->run(in, out, NULL, NULL, w, NULL, o->memory, NULL)) exit(4);
  }
  return (now() - start) / (double)calls;
}
int main(int argc, char **argv) {
  srand((unsigned)getpid());
  long rounds = argc > 1 ? atol(argv[1]) : 30, cold = argc > 2 && atoi(argv[2]) ? sysconf(_SC_LEVEL2_CACHE_SIZE) : 0;
  double sample = argc > 3 ? atof(argv[3]) * 1e9 : 300e3;
  long bytes[2][MOST] = {{0}};
  for (int k = 0; k < COUNT; k++) {
    for (int i = 0; i < all[k].nin; i++) bytes[0][i] = all[k].in[i] > bytes[0][i] ? all[k].in[i] : bytes[0][i];
    for (int i = 0; i < all[k].nout; i++) bytes[1][i] = all[k].out[i] > bytes[1][i] ? all[k].out[i] : bytes[1][i];
  }
  for (int i = 0; i < MOST; i++) in[i] = some((size_t)bytes[0][i]), out[i] = some((size_t)bytes[1][i]);
  for (int k = 0; k < COUNT; k++) {
    load(&all[k], cold);
    timed(&all[k], 2);
    double each = timed(&all[k], 2);
    all[k].calls = each >= sample ? 1 : (long)(sample / each) + 1;
    if (all[k].copies > 1 && all[k].calls > all[k].copies) all[k].calls = all[k].copies;
  }
  for (long r = 0; r < rounds; r++) {
    double ns[COUNT];
    for (int j = 0; j < COUNT; j++) {
      int k = (int)((r / 2 + (r % 2 ? COUNT - 1 - j : j)) % COUNT); /* there and back, from another one each time */
      timed(&all[k], all[k].calls / 8 + 1);
      ns[k] = timed(&all[k], all[k].calls);
    }
    for (int k = 0; k < COUNT; k++) printf("%.1f%c", ns[k], k + 1 < COUNT ? ' ' : '\n');
  }
}
"""


def low(x):
    """Mean of the lowest third: near the floor, not at the luckiest."""
    return statistics.mean(sorted(x)[:max(1, (len(x) + 1) // 3)])


class Linked:
    """entries: (model or kernel, options of `tenon compile`), compiled and linked into one program in `folder`.
    separate: weights beside the objects, so that they can be `cold`."""

    def __init__(self, tenon, folder, entries, separate=True):
        self.program = os.path.join(folder, "linked")
        text, table, objects = HEAD, "", []
        for i, (model, options) in enumerate(entries):
            name, at = "k%d" % i, os.path.join(folder, "k%d" % i)
            weights = ["--weights", "file", "--weights-file", at + ".weights"] if separate else []
            subprocess.run([tenon, "compile", model, "-o", at + ".o", "--header", at + ".h", "--prefix", name, "--threads", "1", *weights, *options],
                           check=True, stdout=subprocess.DEVNULL)
            objects.append(at + ".o")
            up = name.upper()
            text += '#include "%s.h"\nstatic const long %s_in[] = %s_INPUT_BYTES, %s_out[] = %s_OUTPUT_BYTES;\n' % (name, name, up, name, up)
            file = at + ".weights" if separate and os.path.exists(at + ".weights") else ""
            table += '  {(run_fn *)%s_run, "%s", %s_NUM_INPUTS, (long)%s_ARENA_BYTES(1), %s_in, %s_out, %s_NUM_OUTPUTS},\n' % (name, file, up, up, name, name, up)
        with open(self.program + ".c", "w") as f:
            f.write(text + "static object all[] = {\n" + table + "};\n" + BODY)
        subprocess.run(["cc", "-O2", "-Wno-cast-function-type", "-I", folder, "-o", self.program, self.program + ".c", *objects, "-lm"], check=True)

    def rounds(self, n=30, cold=True, sample_s=300e-6):
        """Nanoseconds of one call: a list of rounds, each of the entries' times."""
        text = subprocess.run([self.program, str(n), str(int(cold)), str(sample_s)], check=True, stdout=subprocess.PIPE, text=True).stdout
        return [[float(x) for x in line.split()] for line in text.splitlines()]

    def relative(self, processes=5, cold=True, rounds=60, block=15):
        """Each entry's time over the middle entry's: medians over blocks of rounds, which slow spells hit as a whole, and
        the means over fresh processes: where copies of one object lie is worth 5 % within one."""
        seen = []
        for _ in range(processes):
            all_rounds = self.rounds(rounds, cold)
            blocks = [[low(column) for column in zip(*all_rounds[i:i + block])] for i in range(0, len(all_rounds) - block + 1, block)]
            seen.append([statistics.median(b[i] / statistics.median(b) for b in blocks) for i in range(len(blocks[0]))])
        return [statistics.mean(column) for column in zip(*seen)]
