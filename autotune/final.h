/* final.h — the final of a search: its rounds, and who has won them.
 *
 * Rivals are timed in turn, in blocks of rounds, each block with code and buffers loaded anew. Times have a hard floor
 * and a long tail, so a block says how the means of the lowest thirds of its samples compare: half of the scatter of
 * medians. What slows the machine for a while hits all rivals of a block, but not all alike: of six blocks and more
 * only the quieter half counts, so that whatever ran beside a search does not choose its winner. How the blocks disagree
 * says what a mean over them is worth. Blocks go on while the winner is in doubt, without those that have lost.
 */
#ifndef AT_FINAL_H
#define AT_FINAL_H
#include "autotune/measure.h"

enum {
  AT_FINAL_BLOCK = 15,                  /* rounds */
  AT_FINAL_ROUNDS = 2 * AT_FINAL_BLOCK, /* at least */
  AT_FINAL_SEVERAL = 6 * AT_FINAL_BLOCK, /* the quieter half counts, losers leave */
  AT_FINAL_WIDE = 10 * AT_FINAL_BLOCK,  /* at least, among many rivals: of these one is lucky in the first blocks */
  AT_FINAL_MOST = 24 * AT_FINAL_BLOCK,
  AT_MOST_FINALISTS = 16
};
#define AT_GAIN 0.01 /* a smaller fraction is no gain */

typedef struct at_finalist {
  const double *samples; /* n of them, in the order of the rounds; at most AT_FINAL_MOST count */
  int n;
  double predicted_ns;   /* breaks ties, lower first; 0 or NaN: last */
  const char *text;      /* breaks the remaining ties */
  int founded;           /* rounds behind an earlier result, which fewer do not replace in a store: it does not leave before */
} at_finalist;

/* a's time over b's in the same rounds; NaN without any. */
double at_final_ratio(const at_finalist *a, const at_finalist *b);
/* a is faster than b, by AT_GAIN or more and by three standard errors. */
bool at_final_beats(const at_finalist *a, const at_finalist *b);
/* Who has won a final whose last one is the default, which is beaten by at_final_beats or not at all; those that
 * cannot be told from the fastest go by prediction, then text. ratio[n]: to the default, when not null. */
int at_final_pick(const at_finalist *f, int n, double *ratio);
/* More rounds may give another winner. */
bool at_final_open(const at_finalist *f, int n);

/* f[j] is slower than another one, by AT_GAIN or more and by three standard errors: more rounds would not let it win. */
bool at_final_lost(const at_finalist *f, int n, int j);

/* Times the candidates, which have code, from scratch: AT_FINAL_ROUNDS, then until `moment` (rt_now; 0: no more) while it is
 * open or there were not `least` rounds, those that have lost left out; the last two stay, the winner so far and the default. f[n]: all but samples and n is given; samples and n are set. False when one has failed
 * (its status), or time was up before the first block was through. */
bool at_final_measure(at_lab *lab, int n, at_candidate *const *c, at_finalist *f, int least, double moment);
#endif
