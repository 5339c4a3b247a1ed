/* picked.h — convolutions of bytes by pairs that cannot leave 16 bits. */
#ifndef LW_PICKED_H
#define LW_PICKED_H
#include "lower/build.h"

/* Multiplying u8 by s8 two at a time in 16 bits (vpmaddubsw) is exact where the sum of no two weights leaves
 * -128 .. 128; of the pairs of neighbours 1 to 8 % do in quantised networks. So each panel of 16 outputs pairs the
 * channels in its own way: within groups of 16 channels they are matched so that all pairs fit; a group that has no
 * such matching takes a step more, in which channels stand alone.
 *
 * w: i8 [k, c, taps..], known, k and c multiples of 16. Fills in[1..3] of a tenon:ConvPicked: weights in that order
 * i8 [k, 4 steps, taps..], group u16 [k / 16, taps, steps], pick u8 [k / 16, taps, 4 steps]. False, and nothing
 * made, where it takes more than an eighth more steps than there are channels for. */
bool lw_pick(ir_graph *g, const ir_value *w, ir_value *in[4]);
#endif
