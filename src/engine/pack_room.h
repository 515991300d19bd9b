/* Room for a pack file in its folder: a budget, and which files go first. */
#ifndef ASHLEY_ENGINE_PACK_ROOM_H
#define ASHLEY_ENGINE_PACK_ROOM_H

#include "engine/file_id.h"

/* Whether `need` more bytes can fit at all, whatever goes for them: ASH_ENOSPC if not. Nothing is removed;
 * the folder is made if it is not there. */
int ash_pack_fits(const char *dir, uint64_t budget, uint64_t need, ash_err *err) ASH_MUST_CHECK;
/* Removes what writers that were killed left behind, then, until `need` more bytes fit the budget, the pack
 * files (*.pack) that were longest unused and that no process holds open (a shared flock). All files of the
 * folder count. budget 0: a quarter of what the disk has free, with what lies here, beyond 4 GiB. ASH_ENOSPC,
 * with nothing removed, where that cannot be enough. The caller holds the folder's lock. */
int ash_pack_room(const char *dir, uint64_t budget, uint64_t need, const ash_known_list *known,
                  ash_err *err) ASH_MUST_CHECK;

enum { ASH_PACK_SHARE = 4 }; /* of what the disk has beyond the reserve, one in so many bytes */
/* The budget of the folder: as it is given or, for 0, by what its disk has free and its files take. */
uint64_t ash_pack_budget(uint64_t budget, uint64_t disk_free, uint64_t held);

#endif
