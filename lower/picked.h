/* picked.h — convolutions of bytes by sums that cannot leave 16 bits. */
#ifndef LW_PICKED_H
#define LW_PICKED_H
#include "lower/build.h"

/* Multiplying u8 by s8 two at a time in 16 bits (vpmaddubsw) is exact where positive, and negative, weights add up to no
 * more than 128; two such products may be added before they are widened where those of all four do. Of neighbours 1 to
 * 8 % of the pairs do not in quantised networks. So channels are put together by their weights: of a panel of 16 outputs,
 * q and q + 8 share a lane, and each lane picks the channels of its sums in its own way from a group of 16, which is
 * the same for all lanes. A step is an eight, two sums of four channels, or a four, two sums of two; most groups
 * are two eights, the others mostly an eight and two fours.
 *
 * w: i8 [k, c, taps..], known, k and c multiples of 16. Fills in[1..3] of a tenon:ConvPicked. The sum is over first E
 * eights, then F fours, as many for all panels: weights i8 [k, 8 E + 4 F, taps..], group u16 [k / 16, taps, E + F], pick
 * u8 [k / 16, taps, 2 E + F, lane 4]; of an eight, 0, 1, 4, 5 are one sum and 2, 3, 6, 7 the other, of a four 0, 1 and
 * 2, 3. Places that nobody takes have weights of 0. False, and nothing made, where it takes so many steps that words are
 * as fast. */
bool lw_pick(ir_graph *g, const ir_value *w, ir_value *in[4]);
#endif
