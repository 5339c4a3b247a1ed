/* frames.h — messages between the tuner and its workers: length, then fields in order.
 *
 * Both ends are the same program on the same machine (a fork), so numbers travel as they
 * lie in memory. A reader that runs past the end gets zeros and `bad` is set.
 */
#ifndef AT_FRAMES_H
#define AT_FRAMES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct at_frame {
  char *p;
  size_t n, cap, at; /* at: reading position */
  bool bad;          /* read past the end, or memory is out */
} at_frame;

void at_frame_clear(at_frame *f); /* empty again, keeps its memory */
void at_frame_free(at_frame *f);
void at_put_int(at_frame *f, int64_t v);
void at_put_real(at_frame *f, double v);
void at_put_bytes(at_frame *f, const void *p, size_t n);
void at_put_text(at_frame *f, const char *s); /* null counts as "" */
int64_t at_get_int(at_frame *f);
double at_get_real(at_frame *f);
const void *at_get_bytes(at_frame *f, size_t *n); /* inside the frame, 8-byte aligned */
const char *at_get_text(at_frame *f);             /* inside the frame */

/* Blocking; false when the other end is gone. */
bool at_frame_send(int fd, const at_frame *f);
bool at_frame_receive(int fd, at_frame *f);
/* Takes what has arrived on a non-blocking descriptor: 1 a whole frame, 0 not yet, -1 the
 * other end is gone. `f` must be cleared before the first call for a frame. */
int at_frame_poll(int fd, at_frame *f);
#endif
