package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"example.com/stockd-quickstart/stockd"
)

// order is what a checkout has to keep, so that it can go on after a crash: the id of its reserve, before
// it reserves.
type order struct {
	// The shop's own name for it, which the reservation carries, too.
	Reference string `json:"reference"`
	ReserveID string `json:"reserve_id"`
	// Whether the money has come.
	IsPaid bool `json:"is_paid"`
}

// journal is where an order is kept: one file, written whole.
type journal struct {
	folder, name string
}

// openJournal finds the order as it was left, or begins a new one: it is on the disk when this returns.
func openJournal(folder, reference string) (journal, *order, error) {
	kept := journal{folder: folder, name: filepath.Join(folder, reference)}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return kept, nil, err
	}
	text, err := os.ReadFile(kept.name + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		begun := &order{
			Reference: reference,
			ReserveID: stockd.NewRequestID(),
		}
		return kept, begun, kept.keep(begun)
	}
	if err != nil {
		return kept, nil, err
	}
	var left order
	return kept, &left, json.Unmarshal(text, &left)
}

// keep writes the order as it is now.
func (j journal) keep(current *order) error {
	text, err := json.MarshalIndent(current, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSynced(j.name+".new", text); err != nil {
		return err
	}
	if err := os.Rename(j.name+".new", j.name+".json"); err != nil {
		return err
	}
	// Its new name is on the disk, too.
	folder, err := os.Open(j.folder)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

func writeSynced(path string, text []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(text); err != nil {
		return err
	}
	return file.Sync()
}
