/* A main() for the fuzz targets under any compiler, without libFuzzer.
 *
 *   fuzz_NAME [--random N] [--seed S] [--timeout SECONDS] [--max-bytes B] [--save DIR] PATH...
 *
 * Replays the files at PATH (those in it, if a folder), then runs N inputs made
 * from them by random mutation, in this process. The same seed and corpus give
 * the same inputs. An input that crashes or takes too long is written to
 * DIR/crash-PID (default: the working folder) and the process dies by its signal.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
/* A target's own mutations, on `data` of room `max`; it may call LLVMFuzzerMutate for the plain ones. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) __attribute__((weak));
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
/* Present under the sanitizers: they report first, then call back. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

typedef struct input {
  uint8_t *data;
  size_t size;
} input;

static input *corpus;
static size_t corpus_count;
static size_t max_bytes = 1 << 20;
static unsigned timeout_s = 20;
static const uint8_t *volatile now_data; /* what is running, for the signal handler */
static volatile size_t now_size;
static char save_path[4096] = "crash";

static void save_input(void) {
  int fd = open(save_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) return;
  const uint8_t *p = now_data;
  size_t left = p ? now_size : 0;
  while (left > 0) {
    ssize_t n = write(fd, p, left);
    if (n <= 0) break;
    p += n;
    left -= (size_t)n;
  }
  close(fd);
  static const char text[] = "\nfuzz: the input is in ";
  if (write(2, text, sizeof text - 1) < 0 || write(2, save_path, strlen(save_path)) < 0 ||
      write(2, "\n", 1) < 0)
    return;
}

static void on_signal(int sig) {
  if (sig == SIGALRM) {
    static const char text[] = "\nfuzz: an input takes too long";
    if (write(2, text, sizeof text - 1) < 0) _exit(1);
  }
  save_input();
  signal(sig, SIG_DFL);
  raise(sig);
}

static void run_one(const uint8_t *data, size_t size) {
  /* An exact heap copy: a sanitizer then sees one byte too far. */
  uint8_t *copy = malloc(size ? size : 1);
  if (!copy) abort();
  if (size) memcpy(copy, data, size);
  now_data = copy;
  now_size = size;
  alarm(timeout_s);
  LLVMFuzzerTestOneInput(copy, size);
  alarm(0);
  now_data = NULL;
  free(copy);
}

/* ---- random numbers: splitmix64 ---- */
static uint64_t rng_state;
static uint64_t rng(void) {
  uint64_t z = (rng_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static size_t below(size_t n) { return n ? (size_t)(rng() % n) : 0; }

/* ---- mutation ---- */
static uint8_t *work; /* max_bytes */
static size_t work_size;

static void put_range(size_t at, const uint8_t *p, size_t n) { /* inserts */
  if (n > max_bytes - work_size) n = max_bytes - work_size;
  memmove(work + at + n, work + at, work_size - at);
  memcpy(work + at, p, n);
  work_size += n;
}

static void cut_range(size_t at, size_t n) {
  if (n > work_size - at) n = work_size - at;
  memmove(work + at, work + at + n, work_size - at - n);
  work_size -= n;
}

static size_t short_length(size_t limit) { /* mostly short, at times anything up to limit */
  size_t n = rng() % 4 ? 1 + below(16) : 1 + below(limit);
  return n < limit ? n : limit;
}

static void mutate(void) {
  static const char *const words[] = {
      "0", "-1", "1", "2147483648", "4294967296", "9223372036854775807", "-9223372036854775808",
      "18446744073709551616", "1e999", "nan", "-inf", "(", ")", "[", "]", "{", "}", "\"", "\\", ",",
      ":", "%", "@", "->", "\n", "#", "..", "/", "../"};
  static const uint64_t wide[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff,
      0x80000000u, 0xffffffffu, 0x7fffffffffffffffu, 0x8000000000000000u, 0xffffffffffffffffu};
  uint8_t bytes[128];
  size_t at = below(work_size), n;
  switch (rng() % 12) {
  case 0: if (work_size) work[at] ^= (uint8_t)(1u << (rng() & 7)); break;
  case 1: if (work_size) work[at] = (uint8_t)rng(); break;
  case 2: if (work_size) work[at] = (uint8_t)(work[at] + (int)below(33) - 16); break;
  case 3: if (work_size) cut_range(at, short_length(work_size - at)); break;
  case 4: /* random bytes in */
    n = 1 + below(8);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)rng();
    put_range(at, bytes, n);
    break;
  case 5: /* a piece again, somewhere else */
    if (!work_size) break;
    n = 1 + below(sizeof bytes);
    if (n > work_size - at) n = work_size - at;
    memcpy(bytes, work + at, n);
    put_range(below(work_size), bytes, n);
    break;
  case 6: if (rng() % 4 == 0) work_size = at; break; /* truncate */
  case 7: { /* a number at its limits, little-endian */
    uint64_t v = wide[below(sizeof wide / sizeof *wide)] + (rng() % 3) - 1;
    n = (size_t)1 << below(4);
    if (work_size >= n) memcpy(work + below(work_size - n + 1), &v, n);
    break;
  }
  case 8: { /* a varint at its limits */
    uint64_t v = wide[below(sizeof wide / sizeof *wide)];
    for (n = 0; v >= 0x80 && n < 10; v >>= 7) bytes[n++] = (uint8_t)(v | 0x80);
    bytes[n++] = (uint8_t)v;
    if (rng() % 2) cut_range(at, 1);
    put_range(at, bytes, n);
    break;
  }
  case 9: { /* a word of the text forms */
    const char *w = words[below(sizeof words / sizeof *words)];
    if (rng() % 2) cut_range(at, 1 + below(4));
    put_range(at, (const uint8_t *)w, strlen(w));
    break;
  }
  case 10: { /* a decimal number in place of one */
    size_t i = at;
    while (i < work_size && (work[i] < '0' || work[i] > '9')) i++;
    for (n = i; n < work_size && work[n] >= '0' && work[n] <= '9';) n++;
    if (i == n) break;
    const char *w = words[below(8)];
    cut_range(i, n - i);
    put_range(i, (const uint8_t *)w, strlen(w));
    break;
  }
  default: { /* a piece of another file */
    const input *other = &corpus[below(corpus_count)];
    if (!other->size) break;
    size_t from = below(other->size);
    n = short_length(other->size - from);
    if (rng() % 2) cut_range(at, n);
    put_range(at, other->data + from, n);
    break;
  }
  }
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max) {
  if (data != work || max != max_bytes) abort(); /* there is one buffer */
  work_size = size;
  mutate();
  return work_size;
}

/* ---- corpus ---- */
static void add_input(const uint8_t *data, size_t size) {
  static size_t room;
  if (corpus_count == room) {
    room = room ? 2 * room : 64;
    corpus = realloc(corpus, room * sizeof *corpus);
    if (!corpus) abort();
  }
  uint8_t *copy = malloc(size ? size : 1);
  if (!copy) abort();
  if (size) memcpy(copy, data, size);
  corpus[corpus_count++] = (input){copy, size};
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Reads a file, or the files of a folder in the order of their names. */
static void read_path(const char *path, int depth) {
  struct stat st;
  if (stat(path, &st) != 0) {
    if (depth == 0) fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
    return;
  }
  if (S_ISDIR(st.st_mode)) {
    DIR *dir = opendir(path);
    char **names = NULL;
    size_t n = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
      if (e->d_name[0] == '.') continue;
      size_t length = strlen(path) + strlen(e->d_name) + 2;
      names = realloc(names, (n + 1) * sizeof *names);
      if (!names || !(names[n] = malloc(length))) abort();
      snprintf(names[n++], length, "%s/%s", path, e->d_name);
    }
    if (dir) closedir(dir);
    if (n) qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
      if (depth < 8) read_path(names[i], depth + 1);
      free(names[i]);
    }
    free(names);
    return;
  }
  if (!S_ISREG(st.st_mode) || (size_t)st.st_size > max_bytes) return;
  FILE *file = fopen(path, "rb");
  if (!file) return;
  uint8_t *data = malloc((size_t)st.st_size + 1);
  if (!data) abort();
  size_t size = fread(data, 1, (size_t)st.st_size, file);
  fclose(file);
  add_input(data, size);
  free(data);
}

int main(int argc, char **argv) {
  long long random_runs = 0;
  unsigned long long seed = 1;
  const char *save = ".";
  if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
  int first = argc;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(argv[i], "--random")) random_runs = atoll(value);
    else if (!strcmp(argv[i], "--seed")) seed = strtoull(value, NULL, 0);
    else if (!strcmp(argv[i], "--timeout")) timeout_s = (unsigned)atoi(value);
    else if (!strcmp(argv[i], "--max-bytes")) max_bytes = strtoull(value, NULL, 0);
    else if (!strcmp(argv[i], "--save")) save = value;
    else if (!strncmp(argv[i], "--", 2)) {
      fprintf(stderr, "usage: %s [--random N] [--seed S] [--timeout SECONDS] [--max-bytes B] "
                      "[--save DIR] PATH...\n", argv[0]);
      return 2;
    } else { first = i; break; }
    i++;
  }
  for (int i = first; i < argc; i++) read_path(argv[i], 0);
  snprintf(save_path, sizeof save_path, "%s/crash-%ld", save, (long)getpid());

  /* A sanitizer keeps the faults to itself; abort() and the alarm are always ours. */
  static const int signals[] = {SIGALRM, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  int count = __sanitizer_set_death_callback ? 2 : (int)(sizeof signals / sizeof *signals);
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(save_input);
  for (int i = 0; i < count; i++) signal(signals[i], on_signal);

  for (size_t i = 0; i < corpus_count; i++) run_one(corpus[i].data, corpus[i].size);
  size_t replayed = corpus_count;
  if (corpus_count == 0) add_input((const uint8_t *)"", 0);

  work = malloc(max_bytes ? max_bytes : 1);
  if (!work) abort();
  rng_state = seed;
  for (long long run = 0; run < random_runs; run++) {
    const input *from = &corpus[below(corpus_count)];
    work_size = from->size;
    if (work_size) memcpy(work, from->data, work_size);
    if (LLVMFuzzerCustomMutator) work_size = LLVMFuzzerCustomMutator(work, work_size, max_bytes, (unsigned)rng());
    for (size_t k = LLVMFuzzerCustomMutator ? 0 : 1 + below(8); k > 0; k--) mutate();
    run_one(work, work_size);
  }
  printf("%zu files replayed, %lld random inputs\n", replayed, random_runs);
  for (size_t i = 0; i < corpus_count; i++) free(corpus[i].data);
  free(corpus);
  free(work);
  return 0;
}
