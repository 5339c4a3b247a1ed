/* frames.c — see frames.h. A frame on the wire: 8 bytes of length, then the fields, each
 * rounded up to 8 bytes; texts and bytes carry their own length. */
#include "autotune/frames.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD = 8, MAX_FRAME = 1 << 28 };

void at_frame_clear(at_frame *f) { f->n = f->at = 0, f->bad = false; }
void at_frame_free(at_frame *f) {
  free(f->p);
  *f = (at_frame){0};
}

static bool room(at_frame *f, size_t more) {
  if (f->bad || more > MAX_FRAME || f->n + more > MAX_FRAME) return f->bad = true, false;
  if (f->cap - f->n >= more) return true;
  size_t cap = f->cap ? f->cap : 1024;
  while (cap - f->n < more) cap *= 2;
  char *p = realloc(f->p, cap);
  if (!p) return f->bad = true, false;
  f->p = p;
  f->cap = cap;
  return true;
}

static void put(at_frame *f, const void *p, size_t n) {
  size_t padded = (n + 7) & ~(size_t)7;
  if (!room(f, padded)) return;
  if (n) memcpy(f->p + f->n, p, n);
  memset(f->p + f->n + n, 0, padded - n);
  f->n += padded;
}

void at_put_int(at_frame *f, int64_t v) { put(f, &v, sizeof v); }
void at_put_real(at_frame *f, double v) { put(f, &v, sizeof v); }
void at_put_bytes(at_frame *f, const void *p, size_t n) {
  at_put_int(f, (int64_t)n);
  put(f, p, n);
}
void at_put_text(at_frame *f, const char *s) {
  if (!s) s = "";
  at_put_bytes(f, s, strlen(s) + 1);
}

static const void *take(at_frame *f, size_t n) {
  size_t padded = (n + 7) & ~(size_t)7;
  if (f->bad || n > f->n || f->n - f->at < padded) return f->bad = true, NULL;
  const void *p = f->p + f->at;
  f->at += padded;
  return p;
}

int64_t at_get_int(at_frame *f) {
  int64_t v = 0;
  const void *p = take(f, sizeof v);
  if (p) memcpy(&v, p, sizeof v);
  return v;
}
double at_get_real(at_frame *f) {
  double v = 0;
  const void *p = take(f, sizeof v);
  if (p) memcpy(&v, p, sizeof v);
  return v;
}
const void *at_get_bytes(at_frame *f, size_t *n) {
  int64_t length = at_get_int(f);
  *n = 0;
  if (length < 0 || length > MAX_FRAME) return f->bad = true, NULL;
  const void *p = take(f, (size_t)length);
  if (p) *n = (size_t)length;
  return p;
}
const char *at_get_text(at_frame *f) {
  size_t n;
  const char *s = at_get_bytes(f, &n);
  return s && n && !s[n - 1] ? s : "";
}

static bool send_all(int fd, const void *p, size_t n) {
  const char *c = p;
  while (n) {
    ssize_t k = send(fd, c, n, MSG_NOSIGNAL);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) return false;
    c += k;
    n -= (size_t)k;
  }
  return true;
}

bool at_frame_send(int fd, const at_frame *f) {
  uint64_t n = f->n;
  return !f->bad && send_all(fd, &n, HEAD) && send_all(fd, f->p, f->n);
}

/* Reads into the frame until it is whole; `at` counts bytes read, the head included, and
 * the head lies behind the fields' room until it is known. */
static int receive(int fd, at_frame *f, int flags) {
  for (;;) {
    size_t want = f->at < HEAD ? HEAD - f->at : f->n + HEAD - f->at;
    if (f->at >= HEAD && !want) {
      f->at = 0;
      return 1;
    }
    if (f->at < HEAD) {
      f->n = 0;
      if (!room(f, HEAD)) return -1;
    }
    char *to = f->at < HEAD ? f->p + f->at : f->p + (f->at - HEAD);
    ssize_t k = recv(fd, to, want, flags);
    if (k < 0 && errno == EINTR) continue;
    if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
    if (k <= 0) return -1;
    f->at += (size_t)k;
    if (f->at == HEAD) {
      uint64_t n;
      memcpy(&n, f->p, HEAD);
      if (n > MAX_FRAME || !room(f, (size_t)n)) return -1;
      f->n = (size_t)n;
    }
  }
}

bool at_frame_receive(int fd, at_frame *f) {
  at_frame_clear(f);
  return receive(fd, f, 0) == 1;
}
int at_frame_poll(int fd, at_frame *f) { return receive(fd, f, MSG_DONTWAIT); }
