/* file.c — maps, paths that stay inside a folder, atomic writing, plain arrays. */
#include "frontend/file.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- maps ---- */

static void map_release(void *arg) {
  fe_map *m = arg;
  if (m->size) munmap((void *)m->data, m->size);
}

static const fe_map *map_path(tn_ctx *ctx, const char *real, const char *shown, int extra_flags) {
  fe_map *m = IR_NEW(ctx, fe_map);
  m->data = "";
  m->path = ir_strdup(ctx, shown);
  ir_defer(ctx, map_release, m); /* first: registering may itself throw */
  /* O_NONBLOCK: opening a pipe must not wait for a writer. */
  int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | extra_flags);
  if (fd < 0) ir_fail(ctx, TN_ERESOURCE, "%s: cannot be opened: %s", shown, strerror(errno));
  struct stat st;
  if (fstat(fd, &st) != 0) {
    int e = errno;
    close(fd);
    ir_fail(ctx, TN_ERESOURCE, "%s: cannot be examined: %s", shown, strerror(e));
  }
  if (!S_ISREG(st.st_mode)) {
    close(fd);
    ir_fail(ctx, TN_EINPUT, "%s: is %s, not a regular file", shown, S_ISDIR(st.st_mode) ? "a folder" : "a device or pipe");
  }
  if (st.st_size > 0) {
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
      int e = errno;
      close(fd);
      ir_fail(ctx, TN_ERESOURCE, "%s: cannot be mapped: %s", shown, strerror(e));
    }
    m->data = p;
    m->size = (size_t)st.st_size;
  }
  close(fd);
  return m;
}

const fe_map *fe_map_file(tn_ctx *ctx, const char *path) { return map_path(ctx, path, path, 0); }

static bool has_dotdot(const char *p) {
  while (*p) {
    size_t n = strcspn(p, "/");
    if (n == 2 && p[0] == '.' && p[1] == '.') return true;
    p += n;
    while (*p == '/') p++;
  }
  return false;
}

const fe_map *fe_map_inside(tn_ctx *ctx, const char *folder, const char *location, const char *where) {
  const char *shown = ir_format(ctx, "%s: external data '%s'", where, fe_show(ctx, location, strlen(location)));
  if (!*location) ir_fail(ctx, TN_EINPUT, "%s: the location is empty", shown);
  if (*location == '/') ir_fail(ctx, TN_EINPUT, "%s: an absolute path is not allowed", shown);
  if (has_dotdot(location)) ir_fail(ctx, TN_EINPUT, "%s: '..' is not allowed", shown);
  const char *top = folder && *folder ? folder : ".";
  char root[PATH_MAX], real[PATH_MAX];
  if (!realpath(top, root)) ir_fail(ctx, TN_ERESOURCE, "%s: folder '%s': %s", shown, top, strerror(errno));
  const char *joined = fe_path_join(ctx, folder, location);
  if (!realpath(joined, real)) ir_fail(ctx, TN_ERESOURCE, "%s: cannot be opened: %s", shown, strerror(errno));
  size_t n = strlen(root);
  if (n == 1) n = 0; /* the folder is "/" */
  if (strncmp(real, root, n) != 0 || real[n] != '/')
    ir_fail(ctx, TN_EINPUT, "%s: a symbolic link leads out of the model's folder", shown);
  return map_path(ctx, real, shown, O_NOFOLLOW);
}

void fe_map_drop(const fe_map *m, const void *p, size_t n) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t from = (size_t)((const char *)p - (const char *)m->data), to = from + n;
  from = (from + page - 1) & ~(page - 1);
  to = to >= m->size ? m->size : to & ~(page - 1);
  if (from < to) madvise((char *)m->data + from, to - from, MADV_DONTNEED);
}

/* ---- paths ---- */

char *fe_path_join(tn_ctx *ctx, const char *folder, const char *name) {
  if (!folder || !*folder) return ir_strdup(ctx, name);
  return ir_format(ctx, "%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", name);
}

char *fe_path_folder(tn_ctx *ctx, const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return ir_strdup(ctx, "");
  return ir_strndup(ctx, path, slash == path ? 1 : (size_t)(slash - path));
}

/* ---- what must not outlast the process ---- */

enum { NOTES = 32, FREE = 0, TAKEN, NOTED };
static struct note {
  atomic_int is;
  pid_t by; /* a forked process has the table, but not the files */
  char path[PATH_MAX];
} notes[NOTES];

int fe_note_temporary(const char *path) {
  if (strlen(path) >= PATH_MAX) return -1;
  for (int i = 0; i < NOTES; i++) {
    int is = FREE;
    if (!atomic_compare_exchange_strong(&notes[i].is, &is, TAKEN)) continue;
    notes[i].by = getpid();
    strcpy(notes[i].path, path);
    atomic_store(&notes[i].is, NOTED);
    return i;
  }
  return -1;
}

void fe_forget_temporary(int note) {
  if (note >= 0) atomic_store(&notes[note].is, FREE);
}

void fe_leave_nothing(void) {
  for (int folders = 0; folders < 2; folders++) /* behind what is in them */
    for (int i = 0; i < NOTES; i++)
      if (atomic_load(&notes[i].is) == NOTED && notes[i].by == getpid()) (void)(folders ? rmdir(notes[i].path) : unlink(notes[i].path));
}

/* ---- writing ---- */

struct fe_writer {
  tn_ctx *ctx;
  const char *path, *temporary; /* temporary null: the target is written directly */
  int fd;                       /* -1: finished or given up */
  int note;                     /* of the temporary */
  bool lasting;                 /* synced before it takes its name */
  int failed;                   /* errno of what was written ahead */
  size_t at, ahead, ahead_bytes; /* bytes written in turn; those that were written ahead, and where */
  size_t used;
  char buffer[16 << 10];
};

static void writer_release(void *arg) {
  fe_writer *w = arg;
  if (w->fd < 0) return;
  close(w->fd);
  w->fd = -1;
  if (w->temporary) unlink(w->temporary);
  fe_forget_temporary(w->note);
}

static void IR_NORETURN writer_fail(fe_writer *w, int error) {
  fe_write_abort(w);
  ir_fail(w->ctx, TN_ERESOURCE, "%s: cannot be written: %s", w->path, strerror(error));
}

fe_writer *fe_write_begin(tn_ctx *ctx, const char *path) {
  static _Atomic unsigned serial; /* makes names of temporaries distinct between threads */
  fe_writer *w = IR_NEW(ctx, fe_writer);
  w->ctx = ctx;
  w->path = ir_strdup(ctx, path);
  w->fd = w->note = -1;
  w->lasting = true;
  ir_defer(ctx, writer_release, w);
  struct stat st;
  bool exists = stat(path, &st) == 0;
  if (exists && S_ISDIR(st.st_mode)) writer_fail(w, EISDIR);
  if (exists && !S_ISREG(st.st_mode)) {
    w->fd = open(path, O_WRONLY | O_CLOEXEC);
    if (w->fd < 0) writer_fail(w, errno);
    return w;
  }
  for (int tries = 0; w->fd < 0; tries++) {
    const char *t = ir_format(ctx, "%s.%ld-%u.tmp", path, (long)getpid(), serial++);
    w->note = fe_note_temporary(t); /* its name has this process: nobody else's */
    w->fd = open(t, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int e = errno;
    if (w->fd >= 0) w->temporary = t;
    else fe_forget_temporary(w->note), w->note = -1;
    if (w->fd < 0 && (e != EEXIST || tries == 100)) writer_fail(w, e);
  }
  if (exists && fchmod(w->fd, st.st_mode & 0777) != 0) writer_fail(w, errno);
  return w;
}

fe_writer *fe_write_begin_product(tn_ctx *ctx, const char *path) {
  fe_writer *w = fe_write_begin(ctx, path);
  w->lasting = false;
  return w;
}

static void put_all(fe_writer *w, const char *p, size_t n) {
  while (n) {
    ssize_t k = write(w->fd, p, n < (1u << 30) ? n : 1u << 30);
    if (k < 0 && errno == EINTR) continue;
    if (k < 0) writer_fail(w, errno);
    p += k;
    n -= (size_t)k;
  }
}

static void flush(fe_writer *w) {
  size_t n = w->used;
  w->used = 0;
  put_all(w, w->buffer, n);
}

/* All of [p, p + n) from offset `at`, wherever the file stands. */
static void put_at(fe_writer *w, const char *p, size_t n, off_t at) {
  while (n) {
    ssize_t k = pwrite(w->fd, p, n < (1u << 30) ? n : 1u << 30, at);
    if (k < 0 && errno == EINTR) continue;
    if (k < 0) w->failed = errno;
    if (k < 0) return;
    p += k, at += k;
    n -= (size_t)k;
  }
}

bool fe_write_ahead(fe_writer *w, size_t at, size_t n) {
  if (!w->temporary || !n) return false; /* what is no regular file takes bytes in turn */
  if (ftruncate(w->fd, (off_t)(at + n)) != 0) w->failed = errno;
  w->ahead = at, w->ahead_bytes = n;
  return true;
}

void fe_write_at(fe_writer *w, size_t at, const void *data, size_t n) {
  if (!w->failed) put_at(w, data, n, (off_t)at);
}

void fe_write(fe_writer *w, const void *data, size_t n) {
  ir_assert(w->ctx, w->fd >= 0);
  if (w->failed) writer_fail(w, w->failed);
  if (n && n == w->ahead_bytes && w->at == w->ahead) { /* is there already */
    flush(w);
    if (lseek(w->fd, (off_t)n, SEEK_CUR) < 0) writer_fail(w, errno);
    w->at += n;
    return;
  }
  w->at += n;
  if (n > sizeof w->buffer - w->used) flush(w);
  if (n > sizeof w->buffer) {
    put_all(w, data, n);
    return;
  }
  if (n) memcpy(w->buffer + w->used, data, n);
  w->used += n;
}

void fe_write_settle(fe_writer *w) {
  ir_assert(w->ctx, w->fd >= 0);
  flush(w);
  if (w->temporary && w->lasting && fsync(w->fd) != 0) writer_fail(w, errno);
}

void fe_write_end(fe_writer *w) {
  fe_write_settle(w);
  int fd = w->fd;
  w->fd = -1; /* a failed close has closed all the same */
  int e = close(fd) != 0 ? errno : 0;
  if (w->temporary && !e && rename(w->temporary, w->path) != 0) e = errno;
  if (e && w->temporary) unlink(w->temporary);
  fe_forget_temporary(w->note);
  if (e) writer_fail(w, e);
  ir_undefer(w->ctx, writer_release, w);
}

void fe_write_abort(fe_writer *w) {
  writer_release(w);
  ir_undefer(w->ctx, writer_release, w);
}

void fe_write_file(tn_ctx *ctx, const char *path, const void *data, size_t n) {
  fe_writer *w = fe_write_begin(ctx, path);
  fe_write(w, data, n);
  fe_write_end(w);
}

/* ---- arrays ---- */

bool fe_dims_count(const int64_t *dims, int rank, int64_t *count) {
  bool zero = false, fits = true;
  int64_t n = 1;
  for (int i = 0; i < rank; i++) {
    if (dims[i] < 0) return false;
    if (dims[i] == 0) zero = true;
    else if (fits) fits = ir_mul_size(n, dims[i], &n);
  }
  *count = zero ? 0 : n;
  return zero || fits;
}

const void *fe_clean_bools(tn_ctx *ctx, const void *data, size_t n) {
  const unsigned char *s = data;
  size_t i = 0;
  while (i < n && s[i] <= 1) i++;
  if (i == n) return data;
  unsigned char *d = ir_alloc(ctx, n);
  for (i = 0; i < n; i++) d[i] = s[i] != 0;
  return d;
}

const char *fe_show(tn_ctx *ctx, const char *s, size_t n) {
  char text[4 * 80 + 4], *d = text;
  for (size_t i = 0; i < n && i < 80; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c < 0x20 || c >= 0x7f || c == '\'' || c == '"' || c == '\\') d += snprintf(d, 5, "\\x%02x", c);
    else *d++ = (char)c;
  }
  if (n > 80) memcpy(d, "...", 3), d += 3;
  return ir_strndup(ctx, text, (size_t)(d - text));
}
