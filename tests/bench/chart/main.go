// Command chart draws docs/pictures/cost-light.svg and cost-dark.svg from the tables of
// docs/benchmarks.md: the processor time of a whole server for a request that reads a value. Run it
// in tests/bench after make bench-peers: go run ./chart.
package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const row = "whole server on loopback: the same, read one value of three"

func main() {
	if err := run("../../docs", "../../docs/pictures"); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(docs, pictures string) error {
	text, err := os.ReadFile(filepath.Join(docs, "benchmarks.md"))
	if err != nil {
		return err
	}
	bars, err := read(string(text))
	if err != nil {
		return err
	}
	for name, ink := range map[string]color.Gray{"light": {0x24}, "dark": {0xe0}} {
		if err := draws(bars, ink, filepath.Join(pictures, "cost-"+name+".svg")); err != nil {
			return err
		}
	}
	return nil
}

// A bar is the time of one library, in microseconds.
type bar struct {
	library string
	time    float64
}

// read returns the bars of row, the shortest first.
func read(text string) (bars []bar, _ error) {
	var libraries []string
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		switch {
		case len(cells) > 2 && strings.Contains(line, "| ours |"):
			libraries = strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")
		case strings.Trim(cells[0], "| ") == row:
			cells = strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")[1:]
			if len(cells) != len(libraries) {
				return nil, fmt.Errorf("the row %q has %d times for %d libraries", row, len(cells), len(libraries))
			}
			for i, cell := range cells {
				number, isMicroseconds := strings.CutSuffix(strings.Trim(cell, "* "), " µs")
				time, err := strconv.ParseFloat(number, 64)
				if err != nil || !isMicroseconds {
					return nil, fmt.Errorf("the time of %s is %q, want microseconds", libraries[i], cell)
				}
				bars = append(bars, bar{libraries[i], time})
			}
			slices.SortFunc(bars, func(a, b bar) int { return int(100 * (a.time - b.time)) })
			return bars, nil
		}
	}
	return nil, fmt.Errorf("there is no row %q", row)
}

// draws draws the bars with texts in the color ink on no background.
func draws(bars []bar, ink color.Color, file string) error {
	plot.DefaultFont.Variant = "Sans"
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text = "Processor time of a whole server, per request that reads a value (µs)"
	p.Title.Padding = vg.Points(8)
	p.X.Max = bars[len(bars)-1].time * 1.1 // room for the number behind the longest bar
	var names []string
	for i := range bars {
		b := bars[len(bars)-1-i] // the shortest on top
		names = append(names, b.library+" ")
		c, err := plotter.NewBarChart(plotter.Values{b.time}, vg.Points(16))
		if err != nil {
			return err
		}
		c.Horizontal, c.XMin, c.LineStyle.Width = true, float64(i), 0
		c.Color = color.Gray{0x90}
		if b.library == "ours" {
			c.Color = color.RGBA{0x2e, 0x7d, 0xd7, 0xff}
		}
		label, err := plotter.NewLabels(plotter.XYLabels{
			XYs:    plotter.XYs{{X: b.time, Y: float64(i)}},
			Labels: []string{fmt.Sprintf(" %.0f", b.time)},
		})
		if err != nil {
			return err
		}
		label.TextStyle[0].Color, label.TextStyle[0].YAlign = ink, draw.YCenter
		p.Add(c, label)
	}
	p.NominalY(names...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(bars))-0.5
	p.HideX()
	p.Title.TextStyle.Color, p.Y.Color, p.Y.LineStyle.Color, p.Y.Tick.Label.Color = ink, ink, ink, ink
	canvas := vgsvg.New(7*vg.Inch, 3*vg.Inch)
	p.Draw(draw.New(canvas))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// Readers without this font have one of the same width.
	text := strings.ReplaceAll(svg.String(), "font-family:Liberation Sans", "font-family:Liberation Sans,Arial,Helvetica,sans-serif")
	return os.WriteFile(file, []byte(text), 0o644)
}
