package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// fault is a violation of the contract, and the names of the cases that must fail: exactly
// these. If a fault shows only between two goroutines, the store sleeps at the dangerous place.
// The tests run in a synctest bubble, where the sleep costs no time and lets all other
// goroutines run first.
type fault struct {
	name  string
	into  func(s *mapStore)
	fails string
}

var writeFaults = []fault{
	{"finds nothing and returns nil", func(s *mapStore) {
		s.load = func(ctx context.Context, id string) (*session.Record, error) {
			r, err := s.goodLoad(ctx, id)
			if errors.Is(err, session.ErrNotFound) {
				err = nil
			}
			return r, err
		}
	}, `
		LoadAbsent CreateOfThePast SaveAbsent SaveDeleted SaveOfThePast TouchAbsent TouchDeleted DeleteRemoves IDs
		DeleteRacingSave Expired/Load Expired/Save Expired/Touch`},

	{"hands out its own record", func(s *mapStore) {
		own := map[string]*session.Record{}
		s.load = func(ctx context.Context, id string) (*session.Record, error) {
			r, err := s.goodLoad(ctx, id)
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			key := fmt.Sprint(r)
			if own[key] == nil {
				own[key] = r
			}
			return own[key], nil
		}
	}, "LoadedRecordIsTheCallers"},

	{"forgets when it was created", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			undated := *r
			undated.Created = time.Time{}
			return s.goodCreate(ctx, &undated)
		}
	}, `LoadedRecordIsTheCallers CreateAdds CreateTwice CreateAgain SaveWithoutUser Versions TouchForward TouchNeverBackward
		TouchEachByItself TouchNeverPastDeadline TouchKeepsTheRest DeleteRemoves ListOfTheUser ListAfterDelete ListOfMany
		Times Users Data IDs CreateRacingCreate ListRacingCreate Expired/Create Expired/List Expired/TouchedInTime`},

	{"creates over an existing record", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			if err := s.goodDelete(ctx, r.ID); err != nil {
				return err
			}
			return s.goodCreate(ctx, r)
		}
	}, "CreateTwice CreateAgainAfterASave CreateRacingCreate"},

	{"saves over any version", func(s *mapStore) {
		s.save = func(ctx context.Context, r *session.Record, _ uint64) error {
			time.Sleep(1 * time.Nanosecond)
			for {
				is, err := s.goodLoad(ctx, r.ID)
				if err != nil {
					return err
				}
				if err = s.goodSave(ctx, r, is.Version); !errors.Is(err, session.ErrConflict) {
					return err
				}
			}
		}
	}, "SaveOverAnotherVersion SaveAgainAfterASave Versions SaveRacingSave"},

	{"compares and then swaps", func(s *mapStore) {
		s.save = func(ctx context.Context, r *session.Record, old uint64) error {
			is, err := s.goodLoad(ctx, r.ID)
			switch {
			case err != nil:
				return err
			case is.Version == r.Version:
				return nil
			case is.Version != old:
				return session.ErrConflict
			}
			time.Sleep(1 * time.Nanosecond)
			s.mu.Lock()
			defer s.mu.Unlock()
			if _, ok := s.live(r.ID); !ok {
				return session.ErrNotFound
			}
			s.records[r.ID] = forward(*r, *is)
			return nil
		}
	}, "SaveRacingSave"},

	{"checks and then creates", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			if is, err := s.goodLoad(ctx, r.ID); err == nil && is.Version != r.Version {
				return session.ErrExists
			} else if err == nil {
				return nil
			}
			time.Sleep(1 * time.Nanosecond)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.records[r.ID] = *r
			return ctx.Err()
		}
	}, "CreateRacingCreate"},

	{"revives", func(s *mapStore) {
		s.save = func(ctx context.Context, r *session.Record, old uint64) error {
			time.Sleep(1 * time.Nanosecond)
			err := s.goodSave(ctx, r, old)
			if errors.Is(err, session.ErrNotFound) {
				return s.goodCreate(ctx, r)
			}
			return err
		}
	}, "SaveAbsent SaveDeleted DeleteRacingSave Expired/Save"},

	{"revives the expired", func(s *mapStore) {
		s.save = func(ctx context.Context, r *session.Record, old uint64) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			is, ok := s.records[r.ID]
			return s.swap(ctx, is, ok, r, old)
		}
	}, "Expired/Save"},

	{"forgets expiry", func(s *mapStore) {
		s.now = func() time.Time { return time.Time{} }
	}, "CreateOfThePast SaveOfThePast Expired/Load Expired/Create Expired/Save Expired/Touch Expired/List"},

	{"lists the expired", func(s *mapStore) {
		s.list = func(ctx context.Context, user string) ([]*session.Record, error) {
			return s.listIf(ctx, func(r session.Record) bool { return r.User == user && user != "" })
		}
	}, "CreateOfThePast SaveOfThePast Expired/Save Expired/Touch Expired/List"},

	{"expires at the time of the create", func(s *mapStore) {
		ends := map[string]time.Time{}
		s.create = func(ctx context.Context, r *session.Record) error {
			err := s.goodCreate(ctx, r)
			s.mu.Lock()
			defer s.mu.Unlock()
			if is := s.records[r.ID]; err == nil && is.Version == r.Version {
				ends[r.ID] = r.Expires
			}
			return err
		}
		s.load = func(ctx context.Context, id string) (*session.Record, error) {
			s.mu.Lock()
			end, ok := ends[id]
			s.mu.Unlock()
			if ok && !s.now().Before(end) {
				return nil, session.ErrNotFound
			}
			return s.goodLoad(ctx, id)
		}
	}, "Expired/TouchedInTime Expired/SavedInTime"},

	{"expires with the second", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			cut := *r
			cut.Expires = r.Expires.Truncate(time.Second)
			return s.goodCreate(ctx, &cut)
		}
	}, "Times Expired/Load Expired/Create Expired/Save Expired/Delete Expired/List Expired/TouchedInTime Expired/SavedInTime"},

	{"counts versions itself", func(s *mapStore) {
		s.save = func(ctx context.Context, r *session.Record, old uint64) error {
			time.Sleep(1 * time.Nanosecond)
			counted := *r
			counted.Version = old + 1
			return s.goodSave(ctx, &counted, old)
		}
	}, `
		CreateAgainAfterASave SaveReplaces SaveOverAnotherVersion SaveAgain SaveAgainAfterASave SaveOfThePast
		SaveNeverBackward SaveEachClockByItself SaveNeverPastDeadline SaveOverWhatLoadReturns SaveWithoutUser Versions
		TouchKeepsTheRest ListAfterSave Data DataPassed SaveRacingSave TouchRacingSave Expired/SavedInTime`},

	{"compares versions as floats", func(s *mapStore) {
		s.save = func(ctx context.Context, r *session.Record, old uint64) error {
			if is, err := s.goodLoad(ctx, r.ID); err == nil && float64(is.Version) == float64(old) {
				old = is.Version
			}
			return s.goodSave(ctx, r, old)
		}
	}, "Versions"},

	{"takes its own write for a conflict", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			if _, err := s.goodLoad(ctx, r.ID); err == nil {
				return session.ErrExists
			}
			return s.goodCreate(ctx, r)
		}
		s.save = func(ctx context.Context, r *session.Record, old uint64) error {
			if is, err := s.goodLoad(ctx, r.ID); err == nil && is.Version != old {
				return session.ErrConflict
			}
			return s.goodSave(ctx, r, old)
		}
	}, "CreateAgain SaveAgain"},

	{"saves the data only", func(s *mapStore) {
		s.save = func(ctx context.Context, r *session.Record, old uint64) error {
			is, err := s.goodLoad(ctx, r.ID)
			if err != nil {
				return err
			}
			is.Data, is.Version = r.Data, r.Version
			return s.goodSave(ctx, is, old)
		}
	}, "SaveReplaces SaveOfThePast SaveNeverBackward SaveEachClockByItself SaveNeverPastDeadline SaveWithoutUser Expired/SavedInTime"},

	{"moves the clocks back", func(s *mapStore) {
		s.save = s.saveWith(func(r, _ session.Record) session.Record { return r })
	}, "SaveOfThePast SaveNeverBackward SaveEachClockByItself SaveNeverPastDeadline SaveOverWhatLoadReturns"},

	{"keeps the stored clocks together", func(s *mapStore) {
		s.save = s.saveWith(func(r, was session.Record) session.Record {
			if was.Expires.After(r.Expires) {
				r.LastSeen, r.Expires = was.LastSeen, was.Expires
			}
			if r.Expires.After(r.Deadline) {
				r.Expires = r.Deadline
			}
			return r
		})
	}, "SaveEachClockByItself"},

	{"saves an end past the deadline", func(s *mapStore) {
		s.save = s.saveWith(func(r, was session.Record) session.Record {
			r.LastSeen, r.Expires = latest(r.LastSeen, was.LastSeen), latest(r.Expires, was.Expires)
			return r
		})
	}, "SaveReplaces SaveOfThePast SaveNeverPastDeadline"},

	{"reformats data", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			var b bytes.Buffer
			if json.Compact(&b, r.Data) != nil {
				return s.goodCreate(ctx, r)
			}
			compact := *r
			compact.Data = b.Bytes()
			return s.goodCreate(ctx, &compact)
		}
	}, "Data"},

	{"appends to data", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			_ = append(r.Data, 0)
			return s.goodCreate(ctx, r)
		}
	}, "DataPassed"},

	{"reuses the memory of data", func(s *mapStore) {
		own := func(r *session.Record) *session.Record {
			mine := *r
			mine.Data = bytes.Clone(r.Data)
			return &mine
		}
		s.create = func(ctx context.Context, r *session.Record) error { return s.goodCreate(ctx, own(r)) }
		s.save = func(ctx context.Context, r *session.Record, old uint64) error { return s.goodSave(ctx, own(r), old) }
		s.delete = func(ctx context.Context, id string) error {
			s.mu.Lock()
			clear(s.records[id].Data)
			s.mu.Unlock()
			return s.goodDelete(ctx, id)
		}
	}, "DataReturned"},

	{"keeps seconds", func(s *mapStore) {
		s.load = func(ctx context.Context, id string) (*session.Record, error) {
			r, err := s.goodLoad(ctx, id)
			if err == nil {
				r.Created = r.Created.Truncate(time.Second)
			}
			return r, err
		}
	}, "Times"},

	{"drops the time zone without converting", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			wall := *r
			_, offset := r.Created.Zone()
			wall.Created = r.Created.UTC().Add(time.Duration(offset) * time.Second)
			return s.goodCreate(ctx, &wall)
		}
	}, "Times"},

	{"ignores the case of ids", func(s *mapStore) {
		s.create = func(ctx context.Context, r *session.Record) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for id := range s.records {
				if id != r.ID && strings.EqualFold(id, r.ID) {
					return session.ErrExists
				}
			}
			s.mu.Unlock()
			defer s.mu.Lock()
			return s.goodCreate(ctx, r)
		}
	}, "IDs"},
}
